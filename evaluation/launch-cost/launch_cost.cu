// What the launching thread pays for a launch with <<<>>>: bursts of an empty kernel, between which the GPU is waited for.
// Prints a line of JSON for each kernel: medians over the bursts, in ns per launch.
#include <cstdio>
#include <cstdlib>
#include <algorithm>
#include <ctime>
#include <vector>

static const int BURST = 1000;  // of at most 20 words of the ring's 256 Ki
static const int ROUNDS = 30;
static const int WARM_UP = 3;

__global__ void without_parameters() {}
// As many words as PyTorch's kernels have in the mean.
__global__ void with_parameters(float *, const float *, const float *, long, long, int, float, int) {}

static void check(cudaError_t error, const char *what) {
    if (error != cudaSuccess) {
        fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
        exit(1);
    }
}

static double now_ns(clockid_t clock) {
    timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static double median(std::vector<double> numbers) {
    std::sort(numbers.begin(), numbers.end());
    return numbers[numbers.size() / 2];
}

template <typename Launch> static void measure(const char *name, cudaStream_t stream, Launch launch) {
    std::vector<double> cpu, wall;
    for (int round = 0; round < WARM_UP + ROUNDS; round++) {
        check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
        double cpu_begin = now_ns(CLOCK_THREAD_CPUTIME_ID), wall_begin = now_ns(CLOCK_MONOTONIC);
        for (int index = 0; index < BURST; index++)
            launch(index);
        double wall_end = now_ns(CLOCK_MONOTONIC), cpu_end = now_ns(CLOCK_THREAD_CPUTIME_ID);
        check(cudaGetLastError(), "launch");
        if (round >= WARM_UP) {
            cpu.push_back((cpu_end - cpu_begin) / BURST);
            wall.push_back((wall_end - wall_begin) / BURST);
        }
    }
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    printf("{\"model\": \"%s\", \"cpu_ns\": %.1f, \"wall_ns\": %.1f, \"min_cpu_ns\": %.1f}\n", name, median(cpu), median(wall),
           *std::min_element(cpu.begin(), cpu.end()));
}

int main() {
    cudaStream_t stream;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    measure("without parameters", stream, [=](int) { without_parameters<<<1, 1, 0, stream>>>(); });
    measure("with 8 parameters", stream, [=](int index) {
        with_parameters<<<1, 1, 0, stream>>>(nullptr, nullptr, nullptr, index, 2, 3, 4.0f, 5);
    });
}
