// What a session is fed, checked against the manifest: each mistake is an error that names it.
#pragma once

#include <string>
#include <vector>

#include "manifest.h"

namespace xlstm::session {

// The feeds in the order of the manifest's inputs, sequence_lengths as int32 [batch] made where it
// was left out; `lengths` holds what was made. A dimension of one name has one size, one named as
// a sum (a+b) the sum of theirs, and ids are those of the vocabulary. Throws XLSTM_INPUT_ERROR.
std::vector<Feed> prepare_feeds(const Manifest& manifest, const Ends& ends,
                                const std::vector<Feed>& given, std::vector<int32_t>* lengths);

// Throws XLSTM_INPUT_ERROR unless a forecaster that goes on is fed whole patches.
void check_patches(const ForecastInfo& info, const Feed& series);

void check_ids(const std::string& name, const int64_t* ids, int64_t count, int64_t vocabulary);

}  // namespace xlstm::session
