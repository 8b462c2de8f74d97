// What linking.py's kernel calls: a function and a variable of another input.
extern "C" {
__device__ unsigned calls = 100;

__device__ unsigned scramble(unsigned number) {
    atomicAdd(&calls, 1);
    return number * 1664525u + 1013904223u;
}
}
