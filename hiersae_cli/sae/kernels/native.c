/* Kernels for the CPU: products in ragged groups and at single places, comparison with bounds, Adam's moves of rows.
 * native.py compiles them for this machine.
 *
 * Legend of shapes: B rows, D width, F latents, C children of a level, p pairs, g groups, r touched rows, n places.
 * All matrices are dense and row-major. Results do not depend on the number of threads. An argument called `bfloat16`
 * says whether numbers behind void pointers are bfloat16 or float; inline functions get it as a constant.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* Sizes of tiles whose sums fit the processor's registers. */
#if defined __AVX512F__
enum { LANES = 16, ROWS = 6, CHILDREN = 4 };
#elif defined __AVX__
enum { LANES = 8, ROWS = 3, CHILDREN = 3 };
#else
enum { LANES = 4, ROWS = 4, CHILDREN = 4 };
#endif
enum { ROWS_PER_TASK = 48, PLACES_AHEAD = 4, COLUMNS_PER_CHECK = 64 };
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))

INLINE float sum_of(lanes x) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

INLINE float load(const void *numbers, int64_t place, int bfloat16) {
    if (!bfloat16) return ((const float *)numbers)[place];
    union { uint32_t bits; float number; } x = {(uint32_t)((const uint16_t *)numbers)[place] << 16};
    return x.number;
}

/* With bfloat16, round to one of the two neighbours by the lower 16 bits of `draw`, so that the mean is exact. */
INLINE void store(void *numbers, int64_t place, float number, uint32_t draw, int bfloat16) {
    union { float number; uint32_t bits; } x = {number};
    if (bfloat16) ((uint16_t *)numbers)[place] = (x.bits + (draw & 0xffff)) >> 16;
    else ((float *)numbers)[place] = number;
}

/* A hash: the finaliser of MurmurHash3 (Appleby). */
INLINE uint32_t mixed(uint32_t x) {
    x ^= x >> 16, x *= 0x85ebca6bu, x ^= x >> 13, x *= 0xc2b2ae35u;
    return x ^ x >> 16;
}

/* dot[i][j] = a[i] . b[j], each summed in the same order whatever its place in the tile. `rows` is a constant. */
INLINE void tile(const float *const *a, const float *const *b, int64_t width, int rows, float dot[ROWS][CHILDREN]) {
    lanes total[ROWS][CHILDREN] = {0};
    int64_t whole = width / LANES * LANES;
    for (int64_t d = 0; d < whole; d += LANES) {
        lanes column[CHILDREN];
        for (int j = 0; j < CHILDREN; j++) column[j] = *(const lanes *)(b[j] + d);
        for (int i = 0; i < rows; i++) {
            lanes row = *(const lanes *)(a[i] + d);
            for (int j = 0; j < CHILDREN; j++) total[i][j] += row * column[j];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < CHILDREN; j++) {
            dot[i][j] = sum_of(total[i][j]);
            for (int64_t d = whole; d < width; d++) dot[i][j] += a[i][d] * b[j][d];
        }
}

/* Row, child and value where scale * (x . w) + offset > bound, among the children of each pair's parent, in any order.
 *
 * Pairs are sorted by parent; group g has pairs first_g[g] to first_g[g + 1], and children child_g[g] to
 * child_g[g] + width_g[g]. scale_C may be NULL. Returns n, or -1 without memory. Results beyond
 * `capacity` are only counted.
 */
int64_t hiersae_above(const float *x_BD, const float *w_CD, const float *offset_C, const float *bound_C,
                      const float *scale_C, int64_t width, const int64_t *row_p, int64_t groups,
                      const int64_t *first_g, const int64_t *child_g, const int64_t *width_g, int64_t capacity,
                      int64_t *row_n, int64_t *child_n, float *value_n) {
    int64_t tasks = 0, matches = 0;
    for (int64_t g = 0; g < groups; g++) tasks += (first_g[g + 1] - first_g[g] + ROWS_PER_TASK - 1) / ROWS_PER_TASK;
    int64_t(*task)[2] = malloc((tasks ? tasks : 1) * sizeof *task);
    if (!task) return -1;
    int64_t number = 0;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t p = first_g[g]; p < first_g[g + 1]; p += ROWS_PER_TASK) task[number][0] = g, task[number++][1] = p;
#pragma omp parallel for schedule(dynamic)
    for (int64_t t = 0; t < tasks; t++) {
        int64_t g = task[t][0], low = task[t][1], last = child_g[g] + width_g[g] - 1;
        int64_t high = low + ROWS_PER_TASK < first_g[g + 1] ? low + ROWS_PER_TASK : first_g[g + 1];
        for (int64_t p = low; p < high; p += ROWS)
            for (int64_t c = child_g[g]; c <= last; c += CHILDREN) {
                /* Past the end the last one is repeated, and skipped below. */
                const float *a[ROWS], *b[CHILDREN];
                for (int i = 0; i < ROWS; i++) a[i] = x_BD + row_p[p + i < high ? p + i : high - 1] * width;
                for (int j = 0; j < CHILDREN; j++) b[j] = w_CD + (c + j <= last ? c + j : last) * width;
                float dot[ROWS][CHILDREN];
                if (high - p == 1) tile(a, b, width, 1, dot); /* small tiles only for speed */
                else if (high - p <= ROWS / 2) tile(a, b, width, ROWS / 2, dot);
                else tile(a, b, width, ROWS, dot);
                for (int i = 0; i < ROWS && p + i < high; i++)
                    for (int j = 0; j < CHILDREN && c + j <= last; j++) {
                        float value = dot[i][j] * (scale_C ? scale_C[c + j] : 1.0f) + offset_C[c + j];
                        if (!(value > bound_C[c + j])) continue; /* also skips NaN */
                        int64_t n = __atomic_fetch_add(&matches, 1, __ATOMIC_RELAXED);
                        if (n < capacity) row_n[n] = row_p[p + i], child_n[n] = c + j, value_n[n] = value;
                    }
            }
    }
    free(task);
    return matches;
}

INLINE int64_t count_of(const void *dense_BC, const float *bound_C, int64_t b, int64_t width, int bfloat16) {
    int32_t count = 0;
    for (int64_t c = 0; c < width; c++) count += load(dense_BC, b * width + c, bfloat16) > bound_C[c];
    return count;
}

/* The number of values in each row of a matrix that exceed the bound of their column, (B,). */
void hiersae_count(const void *dense_BC, const float *bound_C, int64_t rows, int64_t width, int bfloat16,
                   int64_t *count_B) {
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < rows; b++)
        count_B[b] = bfloat16 ? count_of(dense_BC, bound_C, b, width, 1) : count_of(dense_BC, bound_C, b, width, 0);
}

INLINE void find_in(const void *dense_BC, const float *bound_C, int64_t b, int64_t width, int bfloat16, int64_t first,
                    int64_t *row_n, int64_t *latent_n) {
    int64_t n = 0;
    for (int64_t low = 0; low < width; low += COLUMNS_PER_CHECK) {
        int64_t high = low + COLUMNS_PER_CHECK < width ? low + COLUMNS_PER_CHECK : width;
        int32_t any = 0;
        for (int64_t c = low; c < high; c++) any |= load(dense_BC, b * width + c, bfloat16) > bound_C[c];
        for (int64_t c = low; any && c < high; c++)
            if (load(dense_BC, b * width + c, bfloat16) > bound_C[c]) row_n[n] = b, latent_n[n++] = first + c;
    }
}

/* The places of these values, in order: row and first + column, (n,) each; row b has first_B[b] to first_B[b + 1]. */
void hiersae_find(const void *dense_BC, const float *bound_C, int64_t rows, int64_t width, int bfloat16,
                  const int64_t *first_B, int64_t first, int64_t *row_n, int64_t *latent_n) {
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < rows; b++) {
        int64_t *row = row_n + first_B[b], *latent = latent_n + first_B[b];
        if (bfloat16) find_in(dense_BC, bound_C, b, width, 1, first, row, latent);
        else find_in(dense_BC, bound_C, b, width, 0, first, row, latent);
    }
}

/* a[row] . w[latent] of places sorted by row, (n,); row b has first_B[b] to first_B[b + 1]. */
void hiersae_dots(const float *a_BD, const float *w_FD, const int64_t *first_B, const int64_t *latent_n, float *dot_n,
                  int64_t rows, int64_t width) {
    int64_t places = first_B[rows], whole = width / LANES * LANES;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < rows; b++)
        for (int64_t n = first_B[b]; n < first_B[b + 1]; n++) {
            /* The rows of w are scattered: waiting for each would take most of the time. */
            if (n + PLACES_AHEAD < places)
                for (int64_t d = 0; d < width; d += 16)
                    __builtin_prefetch(w_FD + latent_n[n + PLACES_AHEAD] * width + d);
            const float *a = a_BD + b * width, *w = w_FD + latent_n[n] * width;
            lanes even = {0}, odd = {0};
            int64_t d = 0;
            for (; d + 2 * LANES <= whole; d += 2 * LANES) {
                even += *(const lanes *)(a + d) * *(const lanes *)(w + d);
                odd += *(const lanes *)(a + d + LANES) * *(const lanes *)(w + d + LANES);
            }
            if (d < whole) even += *(const lanes *)(a + d) * *(const lanes *)(w + d);
            float dot = sum_of(even + odd);
            for (d = whole; d < width; d++) dot += a[d] * w[d];
            dot_n[n] = dot;
        }
}

/* The sum of squares of gradients. For unit rows, first remove the part along each row, in place.
 * square_r is scratch space for the sum of each row. */
double hiersae_gather(const float *weight_FD, const int64_t *row_r, float *value_rD, float *square_r, int64_t rows,
                      int64_t width, int unit) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *weight = weight_FD + row_r[r] * width;
        float *value = value_rD + r * width, along = 0, square = 0;
        if (unit) {
#pragma omp simd reduction(+ : along)
            for (int64_t d = 0; d < width; d++) along += value[d] * weight[d];
            for (int64_t d = 0; d < width; d++) value[d] -= along * weight[d];
        }
#pragma omp simd reduction(+ : square)
        for (int64_t d = 0; d < width; d++) square += value[d] * value[d];
        square_r[r] = square;
    }
    double total = 0;
    for (int64_t r = 0; r < rows; r++) total += square_r[r];
    return total;
}

typedef struct {
    float scale, rate, root, mean_new, square_kept, square_new, eps; /* mean_new is 1 - beta, rounded once */
    int32_t unit, seed;
} Move;

/* Adam's moves of one row, as in _move_rows of row_adam.py; `first` is the index of its first number. */
INLINE void move_row(float *restrict weight, void *restrict mean, void *restrict square, const float *restrict value,
                     const float *due, int64_t first, int64_t width, int bfloat16, Move move) {
    float series = due[0], mean_kept = due[1], square_kept = due[2];
    uint32_t seed = mixed((uint32_t)move.seed);
    for (int64_t d = 0; d < width; d++) {
        float m = load(mean, first + d, bfloat16), s = load(square, first + d, bfloat16);
        float w = weight[first + d], g = value[d] * move.scale;
        uint32_t draw = bfloat16 ? mixed((uint32_t)(first + d) ^ seed) : 0;
        w -= m * series / (sqrtf(s) * move.root + move.eps);
        m *= mean_kept, s *= square_kept;
        m += move.mean_new * (g - m);
        s = s * move.square_kept + move.square_new * g * g;
        weight[first + d] = w - m * move.rate / (sqrtf(s) * move.root + move.eps);
        store(mean, first + d, m, draw, bfloat16);
        store(square, first + d, s, draw >> 16, bfloat16);
    }
}

/* due_r3: series, mean_kept and square_kept of each row, see _Missed in row_adam.py. */
void hiersae_move(float *weight_FD, void *mean_FD, void *square_FD, const int64_t *row_r, const float *value_rD,
                  const float *due_r3, int64_t rows, int64_t width, int bfloat16, const Move *how) {
    Move move = *how;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        int64_t first = row_r[r] * width;
        const float *value = value_rD + r * width, *due = due_r3 + 3 * r;
        if (bfloat16) move_row(weight_FD, mean_FD, square_FD, value, due, first, width, 1, move);
        else move_row(weight_FD, mean_FD, square_FD, value, due, first, width, 0, move);
        if (move.unit) {
            float *weight = weight_FD + first, norm = 0;
#pragma omp simd reduction(+ : norm)
            for (int64_t d = 0; d < width; d++) norm += weight[d] * weight[d];
            norm = sqrtf(norm);
            norm = norm < 1e-12f ? 1e-12f : norm;
            for (int64_t d = 0; d < width; d++) weight[d] /= norm;
        }
    }
}
