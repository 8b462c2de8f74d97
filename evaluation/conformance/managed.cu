// Managed memory as CUDA's samples and courses use it: cudaMallocManaged, __managed__ variables, host and kernels in turns.
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>

#define OK(call) do { cudaError_t e = (call); if (e != cudaSuccess) { \
    std::printf("%s: %s\n", #call, cudaGetErrorString(e)); std::exit(1); } } while (0)
#define RIGHT(condition) do { if (!(condition)) { std::printf("line %d: not %s\n", __LINE__, #condition); std::exit(2); } } while (0)

constexpr int COUNT = 1 << 22;

struct Node {
    int value;
    Node *next;
};

__managed__ int launches = 5;
static __managed__ float table[300];
__managed__ Node *list;
__device__ int plain = 2;

__global__ void axpy(int n, float a, const float *x, float *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i == 0) atomicAdd(&launches, 1);
    for (; i < n; i += gridDim.x * blockDim.x) y[i] += a * x[i];
}

__global__ void fill_table(int n) {
    int i = threadIdx.x + blockIdx.x * blockDim.x;
    if (i < n) table[i] += i * plain;
}

__global__ void sum_list(int *sum) {
    for (Node *node = list; node; node = node->next) *sum += node->value++;
}

static void prefetch(const void *data, size_t bytes, int device, cudaStream_t stream) {
#if CUDART_VERSION >= 13000
    cudaMemLocation place = {device < 0 ? cudaMemLocationTypeHost : cudaMemLocationTypeDevice, device < 0 ? 0 : device};
    OK(cudaMemPrefetchAsync(data, bytes, place, 0, stream));
#else
    OK(cudaMemPrefetchAsync(data, bytes, device, stream));
#endif
}

int main() {
    int concurrent = 0;
    OK(cudaDeviceGetAttribute(&concurrent, cudaDevAttrConcurrentManagedAccess, 0));
    cudaStream_t stream;
    OK(cudaStreamCreate(&stream));
    float *x, *y, *device;
    OK(cudaMallocManaged(&x, COUNT * sizeof *x));
    OK(cudaMallocManaged(&y, COUNT * sizeof *y));
    OK(cudaMalloc(&device, COUNT * sizeof *device));

    // Host and kernels in turns.
    for (int i = 0; i < COUNT; ++i) x[i] = i % 7, y[i] = 1;
    for (int turn = 1; turn <= 6; ++turn) {
        if (concurrent && turn % 3 == 1) prefetch(x, COUNT * sizeof *x, 0, stream);
        axpy<<<256, 256, 0, stream>>>(COUNT, 2.f, x, y);
        OK(cudaGetLastError());
        if (concurrent && turn % 3 == 2) prefetch(y, COUNT * sizeof *y, cudaCpuDeviceId, stream);
        OK(cudaStreamSynchronize(stream));
        for (int i = 0; i < COUNT; i += 1021) RIGHT(y[i] == turn + 2.f * turn * (i % 7));
        for (int i = 0; i < COUNT; ++i) y[i] += 1;
    }
    RIGHT(launches == 11);

    // Copies and fills of every kind.
    OK(cudaMemcpyAsync(device, y, COUNT * sizeof *y, cudaMemcpyDefault, stream));
    OK(cudaMemsetAsync(y, 0, COUNT * sizeof *y, stream));
    OK(cudaMemcpyAsync(x, device, COUNT * sizeof *x, cudaMemcpyDefault, stream));
    OK(cudaStreamSynchronize(stream));
    for (int i = 0; i < COUNT; i += 1021) RIGHT(y[i] == 0 && x[i] == 7 + 12.f * (i % 7));
    OK(cudaMemcpy2D(y, 8192, x, 4096, 4096, 16, cudaMemcpyDefault));
    OK(cudaMemset(x, 0xff, 16));
    RIGHT(y[2048] == x[1024] && y[1024] == 0 && reinterpret_cast<int *>(x)[3] == -1);

    // Variables: values from the source, written by both sides, and named to CUDA.
    for (int i = 0; i < 300; ++i) table[i] = i;
    fill_table<<<3, 128>>>(300);
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < 300; ++i) RIGHT(table[i] == 3 * i);
    cudaPointerAttributes what;
    OK(cudaPointerGetAttributes(&what, table));
    RIGHT(what.type == cudaMemoryTypeManaged);

    // A list that the host builds and a kernel walks.
    int *sum;
    OK(cudaMallocManaged(&sum, sizeof *sum));
    *sum = 0;
    for (int i = 0; i < 50; ++i) {
        Node *node;
        OK(cudaMallocManaged(&node, sizeof *node));
        *node = {i, list};
        list = node;
    }
    sum_list<<<1, 1>>>(sum);
    OK(cudaDeviceSynchronize());
    RIGHT(*sum == 49 * 50 / 2 && list->value == 50);
    while (list) {
        Node *next = list->next;
        OK(cudaFree(list));
        list = next;
    }

    // In a graph, which reads what the host wrote before each launch.
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    axpy<<<256, 256, 0, stream>>>(COUNT, 1.f, x, y);
    OK(cudaMemcpyAsync(device, y, COUNT * sizeof *y, cudaMemcpyDefault, stream));
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&ready, graph, 0));
    for (int turn = 0; turn < 3; ++turn) {
        for (int i = 0; i < COUNT; ++i) x[i] = turn, y[i] = i % 5;
        OK(cudaGraphLaunch(ready, stream));
        OK(cudaStreamSynchronize(stream));
        for (int i = 0; i < COUNT; i += 1021) RIGHT(y[i] == turn + i % 5);
    }
    for (void *memory : {(void *)x, (void *)y, (void *)device, (void *)sum}) OK(cudaFree(memory));
    std::printf("right\n");
    return 0;
}
