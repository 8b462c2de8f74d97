// Library functions and intrinsics whose code is long: they use most of the arithmetic instructions. arithmetic.ptx
// comes from evaluation/kernels/compile.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" {
__global__ void math32(const float *x, float *y) {
    int i = threadIdx.x;
    float v = x[i];
    float *o = y + i * 20;
    o[0] = sinf(v);
    o[1] = cosf(v);
    o[2] = tanf(v);
    o[3] = expf(v);
    o[4] = logf(fabsf(v));
    o[5] = powf(fabsf(v), 1.7f);
    o[6] = tanhf(v);
    o[7] = v / 3.3f;
    o[8] = sqrtf(fabsf(v));
    o[9] = rsqrtf(fabsf(v));
    o[10] = fmodf(v, 0.7f);
    o[11] = roundf(v);
    o[12] = floorf(v);
    o[13] = cbrtf(v);
    o[14] = atan2f(v, 0.3f);
    o[15] = exp2f(v);
    o[16] = log2f(fabsf(v));
    o[17] = sinf(v * 1e6f);
    o[18] = ldexpf(v, 3);
    o[19] = __fadd_rd(v, 1e-9f);
}

__global__ void math64(const double *x, double *y) {
    int i = threadIdx.x;
    double v = x[i];
    double *o = y + i * 10;
    o[0] = sin(v);
    o[1] = cos(v);
    o[2] = exp(v);
    o[3] = log(fabs(v));
    o[4] = pow(fabs(v), 1.7);
    o[5] = sqrt(fabs(v));
    o[6] = v / 3.3;
    o[7] = tanh(v);
    o[8] = rint(v);
    o[9] = fma(v, v, 1.0);
}

__global__ void integers(const unsigned *x, const long long *w, unsigned long long *y) {
    int i = threadIdx.x;
    unsigned v = x[i];
    long long q = w[i];
    unsigned long long *o = y + i * 16;
    o[0] = v / 7;
    o[1] = (int)v / -3;
    o[2] = v % 10;
    o[3] = q / 1000003;
    o[4] = q % 77;
    o[5] = __popc(v);
    o[6] = __clz(v);
    o[7] = __brev(v);
    o[8] = __byte_perm(v, ~v, 0x6543);
    o[9] = __umulhi(v, 0xdeadbeefu);
    o[10] = __mul64hi(q, 0x123456789abcdefLL);
    o[11] = __funnelshift_l(v, ~v, v & 31);
    o[12] = (unsigned long long)((unsigned __int128)(unsigned long long)q * (v | 0x100000000ull) >> 40);
    o[13] = __ffsll(q);
    o[14] = __dp4a((int)v, (int)~v, 5);
    o[15] = __vadd4(v, 0x7f7f7f7f);
}

__global__ void halves(const __half *x, __half *y, __half2 *z, __nv_bfloat16 *b, __half *sum) {
    int i = threadIdx.x;
    __half v = x[i];
    y[i] = __hadd(__hmul(v, v), v);
    __half2 p = __halves2half2(v, __hneg(v));
    z[i] = __hfma2(p, p, __hadd2(p, p));
    __nv_bfloat16 w = __float2bfloat16(__half2float(v));
    b[i] = __hadd(w, __hmul(w, w));
    atomicAdd(sum, __float2half(1.0f));
}
}
