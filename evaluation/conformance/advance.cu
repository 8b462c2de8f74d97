// linking.py's kernel in CUDA C++, for linkers that take LTO-IR.
extern "C" {
__device__ unsigned scramble(unsigned number);

__device__ unsigned factor = 3;

__global__ void advance(unsigned *place) { place[threadIdx.x] = scramble(place[threadIdx.x]) * factor; }
}
