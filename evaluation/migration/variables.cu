// Variables of every kind that a program can have on the GPU: zero and initialised ones, addresses of variables in variables and
// in constants, one that only this file can name, and a constant that the host sets. Each step reads and changes all of them.
#include <cuda_runtime.h>

struct Node {
    unsigned value;
    Node *next;
};

__device__ unsigned counter;
__device__ unsigned seed = 12345;
__device__ Node second = {7, nullptr};
__device__ Node first = {3, &second};
__device__ Node *list = &first;
__device__ unsigned *counters[2] = {&counter, &seed};
static __device__ unsigned history[1024];
__constant__ unsigned factor = 5;
__constant__ Node *constant_list = &first;

__global__ void take_step(unsigned *out) {
    if (threadIdx.x == 0) {
        unsigned count = ++*counters[0];
        *counters[1] = *counters[1] * 1664525u + 1013904223u;
        for (Node *node = list; node; node = node->next)
            node->value = node->value * factor + seed;
        // The list the other way round: the kernel stores addresses of variables, too.
        bool is_first = list == &first;
        first.next = is_first ? nullptr : &second;
        second.next = is_first ? &first : nullptr;
        list = is_first ? &second : &first;
        history[count % 1024] = seed ^ constant_list->value ^ list->value;
    }
    __syncthreads();
    for (unsigned place = threadIdx.x; place < 1024; place += blockDim.x)
        out[place] = history[place] + factor;
}

#define CHECK(call)                                                                                                                \
    do {                                                                                                                           \
        cudaError_t error = (call);                                                                                                \
        if (error != cudaSuccess)                                                                                                  \
            return error;                                                                                                          \
    } while (0)

// One step with this factor. `result` gets 2050 words: what the kernel gave, the history by its address, counter and factor.
extern "C" int variables_step(unsigned new_factor, unsigned *result) {
    static unsigned *out;
    if (!out)
        CHECK(cudaMalloc(&out, 1024 * sizeof *out));
    CHECK(cudaMemcpyToSymbol(factor, &new_factor, sizeof new_factor));
    take_step<<<1, 256>>>(out);
    CHECK(cudaGetLastError());
    CHECK(cudaMemcpy(result, out, 1024 * sizeof *out, cudaMemcpyDeviceToHost));
    void *address;
    CHECK(cudaGetSymbolAddress(&address, history));
    CHECK(cudaMemcpy(result + 1024, address, 1024 * sizeof *out, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpyFromSymbol(result + 2048, counter, sizeof counter));
    CHECK(cudaMemcpyFromSymbol(result + 2049, factor, sizeof factor));
    return cudaSuccess;
}
