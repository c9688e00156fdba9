#include "fields.h"

#include <cstdint>
#include <cstring>


namespace xlstm::trt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

PluginFieldType field_type(AttributeKind kind) {
  return kind == AttributeKind::kFloat ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32;
}

const AttributeSchema* find_attribute(const OpSchema& schema, const char* name) {
  for (int a = 0; a < schema.attribute_count; ++a) {
    if (std::strcmp(schema.attributes[a].name, name) == 0) return &schema.attributes[a];
  }
  return nullptr;
}

// FLOAT and INT attributes are both four bytes, so a field is copied bit for bit.
static_assert(sizeof(float) == 4 && sizeof(int32_t) == 4);

std::string check_value(const AttributeSchema& attribute, const void* data) {
  float number;
  int32_t integer;
  std::memcpy(&number, data, sizeof number);
  std::memcpy(&integer, data, sizeof integer);
  const bool is_float = attribute.kind == AttributeKind::kFloat;
  // not as a float, which rounds an int32
  const double value = is_float ? number : static_cast<double>(integer);
  return in_range(attribute, value) ? std::string() : out_of_range(attribute, value);
}

std::string read_field(const OpSchema& schema, const PluginField& field, Attributes* attributes) {
  const char* name = field.name == nullptr ? "" : field.name;
  const AttributeSchema* attribute = find_attribute(schema, name);
  if (attribute == nullptr) {
    return std::string("has no attribute '") + name + "'; the model may be newer than this library";
  }
  if (field.type != field_type(attribute->kind) || field.length != 1 || field.data == nullptr) {
    return std::string(name) + " takes one " +
           (attribute->kind == AttributeKind::kFloat ? "FLOAT" : "INT");
  }
  std::string wrong = check_value(*attribute, field.data);
  if (wrong.empty()) std::memcpy(attributes->bytes + attribute->offset, field.data, 4);
  return wrong;
}

}  // namespace

const char* plugin_version() {
  static const std::string version = std::to_string(kDomainVersion);
  return version.c_str();
}

Attributes default_attributes(const OpSchema& schema) {
  Attributes made;
  for (int a = 0; a < schema.attribute_count; ++a) {
    const AttributeSchema& attribute = schema.attributes[a];
    const auto as_float = static_cast<float>(attribute.default_value);
    const auto as_int = static_cast<int32_t>(attribute.default_value);
    const bool is_float = attribute.kind == AttributeKind::kFloat;
    const void* value = is_float ? static_cast<const void*>(&as_float) : &as_int;
    std::memcpy(made.bytes + attribute.offset, value, 4);
  }
  return made;
}

Fields::Fields(const OpSchema& schema, const Attributes* values) {
  for (int a = 0; a < schema.attribute_count; ++a) {
    const AttributeSchema& attribute = schema.attributes[a];
    const void* place = values == nullptr ? nullptr : values->bytes + attribute.offset;
    fields_[a] = {attribute.name, place, field_type(attribute.kind), 1};
  }
  collection_ = {schema.attribute_count, fields_};
}

std::string read_fields(const OpSchema& schema, const nvinfer1::PluginFieldCollection* given,
                        bool all, Attributes* attributes) {
  const int count = given == nullptr ? 0 : given->nbFields;
  bool seen[kMostAttributes] = {};
  for (int i = 0; i < count; ++i) {
    const PluginField& field = given->fields[i];
    std::string wrong = read_field(schema, field, attributes);
    if (!wrong.empty()) return wrong;
    seen[find_attribute(schema, field.name) - schema.attributes] = true;
  }
  for (int a = 0; all && a < schema.attribute_count; ++a) {
    if (!seen[a]) return std::string("the engine lacks attribute ") + schema.attributes[a].name;
  }
  return {};
}

}  // namespace xlstm::trt
