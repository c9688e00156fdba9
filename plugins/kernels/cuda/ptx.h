// Instructions that C++ has no words for, as functions; tests/cuda/shim/ptx.h has their meaning in
// C++. Include it as <ptx.h>. Below sm_80, or sm_90, they trap: a variant that needs them does not
// fit.
//
// Registers lie as PTX says (PTX ISA, "Matrix fragments for mma.m16n8k16"); g = lane / 4 and
// t = lane % 4, two 16-bit elements in a register, the lower index in the lower half:
//   A [16,16] row-major  a0 (g, 2t) a1 (g+8, 2t) a2 (g, 2t+8) a3 (g+8, 2t+8)
//   B [16,8]             b0 (2t, g) b1 (2t+8, g)
//   D [16,8]             d0, d1 (g, 2t), (g, 2t+1)  d2, d3 (g+8, 2t), (g+8, 2t+1)
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace xlstm::cuda {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define XLSTM_PTX(...) asm volatile(__VA_ARGS__)
#else
#define XLSTM_PTX(...) __trap()
#endif

// d += a b, summed in float32.
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    __nv_bfloat16) {
  XLSTM_PTX("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    __half) {
  XLSTM_PTX("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of float32 registers, of which the upper 19 bits are read:
//   A [16,8] a0 (g, t) a1 (g+8, t) a2 (g, t+4) a3 (g+8, t+4)   B [8,8] b0 (t, g) b1 (t+4, g)
__device__ inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  XLSTM_PTX("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
            "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline uint32_t shared_address(const void* place) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(place));
}

// Matrices of 8 x 8 16-bit elements from shared memory: lane 8 i + r gives the place of row r of
// matrix i, 16 bytes; r[i] is row g, columns 2t and 2t+1 of it (transposed: rows 2t, 2t+1 of
// column g). With two matrices, lanes past 15 give any place.
__device__ inline void load_matrix_x4(uint32_t (&r)[4], const void* row) {
  XLSTM_PTX("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
            : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
            : "r"(shared_address(row))
            : "memory");
}
__device__ inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  XLSTM_PTX("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
            : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
            : "r"(shared_address(row))
            : "memory");
}
__device__ inline void load_matrix_x2(uint32_t (&r)[2], const void* row) {
  XLSTM_PTX("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
            : "=r"(r[0]), "=r"(r[1])
            : "r"(shared_address(row))
            : "memory");
}
__device__ inline void load_matrix_x2_transposed(uint32_t (&r)[2], const void* row) {
  XLSTM_PTX("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
            : "=r"(r[0]), "=r"(r[1])
            : "r"(shared_address(row))
            : "memory");
}

// 16 bytes to shared memory, both aligned to 16; zeros where they are not `there`. They arrive by
// the wait for the group that the next commit closes, for other threads after a barrier.
__device__ inline void copy_async_16(void* shared, const void* global, bool there = true) {
  XLSTM_PTX("cp.async.cg.shared.global [%0], [%1], 16, %2;"
            :: "r"(shared_address(shared)), "l"(global), "r"(there ? 16 : 0)
            : "memory");
}
// The same of 4 bytes, aligned to 4.
__device__ inline void copy_async_4(void* shared, const void* global) {
  XLSTM_PTX("cp.async.ca.shared.global [%0], [%1], 4;"
            :: "r"(shared_address(shared)), "l"(global)
            : "memory");
}
__device__ inline void copy_async_commit() { XLSTM_PTX("cp.async.commit_group;" ::: "memory"); }
// Until no more than the last kPending groups are under way.
template <int kPending>
__device__ inline void copy_async_wait() {
  XLSTM_PTX("cp.async.wait_group %0;" :: "n"(kPending) : "memory");
}

// A matrix of 8 x 8 16-bit elements, of which each lane has two neighbours of row g, columns 2t and
// 2t+1; returned: of column g, rows 2t and 2t+1.
__device__ inline uint32_t transpose_matrix(uint32_t row) {
  uint32_t column = 0;
  XLSTM_PTX("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(column) : "r"(row));
  return column;
}

#undef XLSTM_PTX

// --- clusters of blocks, from sm_90 on ----------------------------------------------------------

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define XLSTM_PTX(...) asm volatile(__VA_ARGS__)
#else
#define XLSTM_PTX(...) __trap()
#endif

// `value` to where `shared` is in the cluster's block of that rank; 4 bytes, aligned.
__device__ inline void store_to_block(void* shared, int rank, uint32_t value) {
  XLSTM_PTX("{\n\t.reg .b32 place;\n\t"
            "mapa.shared::cluster.u32 place, %0, %1;\n\t"
            "st.shared::cluster.b32 [place], %2;\n\t}"
            :: "r"(shared_address(shared)), "r"(rank), "r"(value)
            : "memory");
}

// The cluster's barrier, every warp as a whole: past the wait, all that was stored before any
// thread's arrival is there. A block may not be stored to before it has begun nor after its end.
__device__ inline void cluster_arrive() {
  XLSTM_PTX("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void cluster_wait() {
  XLSTM_PTX("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

#undef XLSTM_PTX

// 2^x within 2^-22 of it and 1 / x within a unit of the last place; what is below the smallest
// normal number is taken for 0.
__device__ inline float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float reciprocal_approximate(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// NaN where either is; one instruction where at_least and at_most are three.
__device__ inline float maximum(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return a < b || b != b ? b : a;
#endif
}
__device__ inline float minimum(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return b < a || b != b ? b : a;
#endif
}

// Two elements to nearest, `low` in the lower half.
__device__ inline uint32_t pack(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}
__device__ inline uint32_t pack(float low, float high, __half) {
  const __half2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&both);
}

}  // namespace xlstm::cuda
