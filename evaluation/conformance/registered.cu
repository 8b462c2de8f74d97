// Registered memory as programs have it, vectors and what malloc gives, in kernels: it begins and ends anywhere in pages that other
// objects are in.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#define OK(call) do { cudaError_t e = (call); if (e != cudaSuccess) { \
    std::printf("%s: %s\n", #call, cudaGetErrorString(e)); std::exit(1); } } while (0)
#define RIGHT(condition) do { if (!(condition)) { std::printf("line %d: not %s\n", __LINE__, #condition); std::exit(2); } } while (0)

__global__ void add(int n, int value, int *data) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) data[i] += value;
}

__global__ void sum(int n, const int *const *parts, const int *lengths, int *results) {
    int part = blockIdx.x * blockDim.x + threadIdx.x;
    if (part >= n) return;
    results[part] = 0;
    for (int i = 0; i < lengths[part]; ++i) results[part] += parts[part][i];
}

__global__ void narrow(int n, const double *from, unsigned char *to) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) to[i] = (unsigned char)from[i];
}

template <class T> T *registered(std::vector<T> &memory) {
    OK(cudaHostRegister(memory.data(), memory.size() * sizeof(T), cudaHostRegisterMapped));
    T *device;
    OK(cudaHostGetDevicePointer(&device, memory.data(), 0));
    return device;
}

int main() {
    cudaStream_t stream;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));

    // Of every length, in pages with vectors that a thread writes meanwhile. No two of them are in one page, which a driver may
    // refuse.
    std::vector<std::unique_ptr<std::vector<int>>> vectors, others;
    std::vector<int *> devices;
    for (int length : {1, 3, 17, 100, 1000, 1023, 1024, 1025, 3000, 20000, 1 << 20}) {
        for (int turn = 0; turn < 3; ++turn) {
            vectors.push_back(std::make_unique<std::vector<int>>(length));
            others.push_back(std::make_unique<std::vector<int>>(3000, -1));
            devices.push_back(registered(*vectors.back()));
        }
    }
    std::atomic<bool> is_over{false};
    std::atomic<int> wrong{0};
    std::thread writer([&] {
        for (int turn = 0; !is_over; ++turn) {
            for (auto &other : others) for (volatile int *value : {&other->front(), &other->back()}) {
                if (*value != turn - 1) ++wrong;
                *value = turn;
            }
        }
    });
    for (int turn = 0; turn < 20; ++turn) {
        for (size_t index = 0; index < vectors.size(); ++index) {
            auto &vector = *vectors[index];
            std::iota(vector.begin(), vector.end(), turn);
            add<<<64, 128, 0, turn % 2 ? stream : nullptr>>>((int)vector.size(), 1000, devices[index]);
            OK(cudaGetLastError());
        }
        OK(turn % 2 ? cudaStreamSynchronize(stream) : cudaDeviceSynchronize());
        for (auto &vector : vectors) {
            for (size_t i = 0; i < vector->size(); ++i) RIGHT((*vector)[i] == turn + 1000 + (int)i);
        }
    }
    is_over = true;
    writer.join();
    RIGHT(wrong == 0);

    // Pointers to them that lie in memory themselves.
    std::vector<int> lengths, results;
    lengths.reserve(4000), devices.reserve(4000), results.reserve(4000);
    results.resize(vectors.size());
    for (auto &vector : vectors) lengths.push_back((int)vector->size());
    int **parts = registered(devices), *device_lengths = registered(lengths), *device_results = registered(results);
    for (auto &vector : vectors) std::fill(vector->begin(), vector->end(), 2);
    sum<<<3, 64, 0, stream>>>((int)vectors.size(), parts, device_lengths, device_results);
    OK(cudaStreamSynchronize(stream));
    for (size_t index = 0; index < vectors.size(); ++index) RIGHT(results[index] == 2 * lengths[index]);

    // In the order of a stream with copies and fills by either address, and with functions of the host.
    std::vector<double> doubles;
    std::vector<unsigned char> bytes;
    doubles.reserve(14000), bytes.reserve(30000);
    doubles.resize(12345), bytes.resize(12345);
    double *from = registered(doubles);
    unsigned char *to = registered(bytes), *device;
    OK(cudaMalloc(&device, bytes.size()));
    for (int turn = 0; turn < 10; ++turn) {
        for (size_t i = 0; i < doubles.size(); ++i) doubles[i] = (i + turn) % 256;
        narrow<<<8, 256, 0, stream>>>((int)doubles.size(), from, to);
        OK(cudaMemcpyAsync(device, bytes.data(), bytes.size(), cudaMemcpyDefault, stream));
        OK(cudaMemsetAsync(to, 1, bytes.size(), stream));
        OK(cudaLaunchHostFunc(stream, [](void *data) {
            auto &bytes = *(std::vector<unsigned char> *)data;
            for (auto &byte : bytes) byte += 1;
        }, &bytes));
        OK(cudaMemcpyAsync(device, to, 100, cudaMemcpyDefault, stream));
        OK(cudaMemcpyAsync(bytes.data() + 100, device, bytes.size() - 100, cudaMemcpyDefault, stream));
        OK(cudaStreamSynchronize(stream));
        for (size_t i = 0; i < bytes.size(); ++i) {
            RIGHT(bytes[i] == (i < 200 ? 2 : (unsigned char)(i - 100 + turn)));
        }
    }

    // In a graph, which reads what the host wrote before each launch.
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    narrow<<<8, 256, 0, stream>>>((int)doubles.size(), from, to);
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&ready, graph, 0));
    for (int turn = 0; turn < 5; ++turn) {
        std::fill(doubles.begin(), doubles.end(), turn);
        OK(cudaGraphLaunch(ready, stream));
        OK(cudaStreamSynchronize(stream));
        for (unsigned char byte : bytes) RIGHT(byte == turn);
    }

    cudaPointerAttributes what;
    OK(cudaPointerGetAttributes(&what, bytes.data() + 7));
    RIGHT(what.type == cudaMemoryTypeHost && what.hostPointer == bytes.data() + 7 && what.devicePointer == to + 7);
    for (auto &vector : vectors) OK(cudaHostUnregister(vector->data()));
    for (auto &vector : vectors) for (int value : *vector) RIGHT(value == 2);
    for (void *memory : {(void *)doubles.data(), (void *)bytes.data(), (void *)devices.data(), (void *)lengths.data(),
                         (void *)results.data()}) OK(cudaHostUnregister(memory));
    OK(cudaPointerGetAttributes(&what, bytes.data()));
    RIGHT(what.type == cudaMemoryTypeUnregistered);
    std::printf("right\n");
    return 0;
}
