// Language features that ordinary kernels rely on, each with its own entry. features.ptx comes from
// evaluation/kernels/compile.

extern "C" {
struct Big {
    float v[6];
    int k;
};
__device__ __noinline__ float helper(float a, int k) {
    float sum = a;
    for (int i = 0; i < k; i++) {
        sum = sum * 0.5f + a;
    }
    return sum;
}
__device__ __noinline__ Big make(float a, int k) {
    Big b;
    for (int i = 0; i < 6; i++) {
        b.v[i] = helper(a, i + k);
    }
    b.k = k;
    return b;
}
// Structs by value, as a kernel's parameter with a computed index and through two levels of calls that diverge.
__global__ void calls(Big in, float *y) {
    int i = threadIdx.x;
    Big b = make(in.v[i % 6], i % 5 + in.k);
    float sum = 0;
    for (int j = 0; j < 6; j++) {
        sum += b.v[(j + i) % 6] * j;
    }
    y[i] = sum + b.k;
}

__global__ void switches(const int *x, int *y) {
    int i = threadIdx.x;
    int r;
    switch (x[i]) {
    case 0: r = 10; break;
    case 1: r = i * 3; break;
    case 2: r = i ^ 77; break;
    case 3: r = -i; break;
    case 4: r = i << 3; break;
    case 5: r = i / 3; break;
    case 6: r = 123; break;
    case 7: r = i * i; break;
    default: r = -1;
    }
    y[i] = r;
}

// An array with computed indices lies in local memory.
__global__ void locals(const int *x, int *y, int n) {
    int a[33];
    int i = threadIdx.x;
    for (int j = 0; j < 33; j++) {
        a[(j * 7) % 33] = j * i;
    }
    int s = 0;
    for (int j = 0; j < n; j++) {
        s = s * 31 + a[(x[j] + i) % 33];
    }
    y[i] = s;
}

// Threads of one warp compete for a lock: the one that has it must get its turn.
__global__ void locks(int *lock, int *value, int *y) {
    bool done = false;
    int mine = 0;
    while (!done) {
        if (atomicCAS(lock, 0, 1) == 0) {
            mine = *(volatile int *)value;
            *(volatile int *)value = mine + 1;
            __threadfence();
            atomicExch(lock, 0);
            done = true;
        }
    }
    y[blockIdx.x * blockDim.x + threadIdx.x] = mine;
}

// One warp waits for what another writes to shared memory.
__global__ void hand_over(int *y) {
    __shared__ volatile int flag;
    if (threadIdx.x == 0) {
        flag = 0;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        while (flag == 0) {
        }
        y[0] = flag;
    } else if (threadIdx.x == 40) {
        flag = 42;
    }
}

__global__ void counts(const int *x, int *y) {
    int v = x[threadIdx.x];
    unsigned ballot = __ballot_sync(0xffffffffu, v > 3);
    int count = __syncthreads_count(v > 3), all = __syncthreads_and(v > -1000), any = __syncthreads_or(v > 3000);
    y[threadIdx.x] = __popc(ballot) * 1000 + count * 10 + all * 2 + any;
}

// Producer and consumer warps on a named barrier of 64 threads.
__global__ void named_barriers(int *y) {
    __shared__ int data[32];
    int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {
        data[lane] = lane * lane;
        asm volatile("bar.arrive 1, 64;" ::: "memory");
    } else if (threadIdx.x < 64) {
        asm volatile("bar.sync 1, 64;" ::: "memory");
        y[lane] = data[31 - lane];
    }
}

__device__ int cells[4] = {1, 2, 3, 4};
__device__ int *where = cells + 2;
__global__ void relocated(int *y) {
    y[0] = *where;
}

__global__ void asserts(int *y) {
    if (y[0] != 0) {
        __trap();
    }
    y[1] = 1;
}
}
