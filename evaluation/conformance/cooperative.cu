// Cooperative launches: grids whose blocks all wait for each other, by the runtime's call, by attributes, and in a graph.
#include <cstdio>
#include <cstdlib>
#include <vector>
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#define OK(call) do { cudaError_t e = (call); if (e != cudaSuccess) { \
    std::printf("line %d: %s: %s\n", __LINE__, #call, cudaGetErrorString(e)); std::exit(1); } } while (0)
#define RIGHT(condition) do { if (!(condition)) { std::printf("line %d: not %s\n", __LINE__, #condition); std::exit(2); } } while (0)

namespace groups = cooperative_groups;

constexpr int THREADS = 128, ROUNDS = 50;

// In each round every element takes in one of the next block, which that one must have written.
__global__ void rounds(unsigned *from, unsigned *to, int count) {
    groups::grid_group grid = groups::this_grid();
    for (int round = 0; round < ROUNDS; ++round) {
        for (int i = grid.thread_rank(); i < count; i += grid.size())
            to[i] = from[i] * 5 + from[(i + THREADS) % count] + round;
        grid.sync();
        unsigned *other = from;
        from = to;
        to = other;
    }
}

// What a grid-wide sum is, known to every block before the kernel ends.
__global__ void shares(const unsigned *values, unsigned *sum, unsigned *out, int count) {
    groups::grid_group grid = groups::this_grid();
    for (int i = grid.thread_rank(); i < count; i += grid.size()) atomicAdd(sum, values[i] % 1000);
    grid.sync();
    unsigned whole = *reinterpret_cast<volatile unsigned *>(sum);
    for (int i = grid.thread_rank(); i < count; i += grid.size()) out[i] = whole - values[i] % 1000;
}

static void step(std::vector<unsigned> &values) {
    std::vector<unsigned> next(values.size());
    for (int round = 0; round < ROUNDS; ++round) {
        for (size_t i = 0; i < values.size(); ++i) next[i] = values[i] * 5 + values[(i + THREADS) % values.size()] + round;
        values.swap(next);
    }
}

static std::vector<unsigned> host(const unsigned *device, int count) {
    std::vector<unsigned> values(count);
    OK(cudaMemcpy(values.data(), device, count * sizeof(unsigned), cudaMemcpyDeviceToHost));
    return values;
}

int main() {
    int cooperates = 0, processors = 0, blocks = 0;
    OK(cudaDeviceGetAttribute(&cooperates, cudaDevAttrCooperativeLaunch, 0));
    OK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, rounds, THREADS, 0));
    RIGHT(cooperates == 1 && blocks > 0);
    // All that fit.
    int grid = processors * blocks, count = grid * THREADS + 77;
    std::vector<unsigned> expected(count);
    for (int i = 0; i < count; ++i) expected[i] = i * 2654435761u;
    size_t bytes = count * sizeof(unsigned);
    unsigned *from, *to, *sum;
    OK(cudaMalloc(&from, bytes));
    OK(cudaMalloc(&to, bytes));
    OK(cudaMalloc(&sum, sizeof *sum));
    OK(cudaMemcpy(from, expected.data(), bytes, cudaMemcpyHostToDevice));
    void *arguments[] = {&from, &to, &count};
    RIGHT(cudaLaunchCooperativeKernel(rounds, grid + 1, THREADS, arguments, 0, 0) == cudaErrorCooperativeLaunchTooLarge);
    RIGHT(cudaGetLastError() == cudaErrorCooperativeLaunchTooLarge);
    cudaStream_t stream;
    OK(cudaStreamCreate(&stream));

    OK(cudaLaunchCooperativeKernel(rounds, grid, THREADS, arguments, 0, stream));
    OK(cudaStreamSynchronize(stream));
    step(expected);
    RIGHT(host(from, count) == expected);

    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(grid), config.blockDim = dim3(THREADS), config.stream = stream;
    config.attrs = &attribute, config.numAttrs = 1;
    OK(cudaLaunchKernelEx(&config, rounds, from, to, count));
    OK(cudaStreamSynchronize(stream));
    step(expected);
    RIGHT(host(from, count) == expected);

    // Several of them behind each other, captured.
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int turn = 0; turn < 2; ++turn) OK(cudaLaunchCooperativeKernel(rounds, grid, THREADS, arguments, 0, stream));
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&ready, graph, 0));
    for (int turn = 0; turn < 3; ++turn) {
        OK(cudaGraphLaunch(ready, stream));
        step(expected), step(expected);
    }
    OK(cudaStreamSynchronize(stream));
    RIGHT(host(from, count) == expected);

    // Another kernel, whose blocks read what all of them have added up.
    OK(cudaMemset(sum, 0, sizeof *sum));
    void *others[] = {&from, &sum, &to, &count};
    OK(cudaLaunchCooperativeKernel(shares, processors, THREADS, others, 0, 0));
    unsigned whole = 0;
    for (unsigned value : expected) whole += value % 1000;
    for (unsigned &value : expected) value = whole - value % 1000;
    RIGHT(host(to, count) == expected);
    std::puts("right");
}
