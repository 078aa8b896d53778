/* Native CPU kernels of the neuron family (symbols: methods/nn/neuron.py) and of the linear recurrence (methods/nn/recurrence.py).
 *
 * A sequence is [steps, size]: `size` numbers of one step lie side by side in any order of the inner dimensions, and successive steps
 * are a stride apart (0 for an input that is the same at every step). The outer loop goes over blocks of neurons, in parallel; the inner
 * one over time, with the state of a block in the first-level cache, so that every number passes through memory once each way.
 *
 * Compiled by methods/nn/native.py without contraction of products and sums: results must be those of PyTorch's separate operations,
 * bit for bit in the forward pass. REAL is float or double, BITS an unsigned integer as wide. Nothing here allocates, except a backward
 * pass that recomputes. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef REAL
#define REAL float
#define BITS uint32_t
#endif
#define MAX_BLOCK 4096
#define INLINE static inline __attribute__((always_inline))

typedef ptrdiff_t idx;

enum { HARD, SOFT, NONE };
enum { RECTANGLE, LINEAR, SIGMOID, GAUSS, ARCTAN, FAST_SIGMOID }; /* triangle and polynomial are both LINEAR: max(0, c0 - c1 |d|) c2 */

typedef struct {
    int32_t reset, attached, strict, surrogate, scaled;
    double threshold, v_init, c0, c1, c2;
} Neuron;

/* Where the blocks of a sequence lie: `steps` rows of `size` numbers, worked on in columns of `block`, by `threads` threads. */
typedef struct {
    idx steps, size, block;
    int32_t threads;
} Grid;

/* Written out so that it is vectorised: range reduction by ln 2 in two parts, and the Taylor polynomial on |r| <= ln(2)/2, whose remainder
 * is below a rounding error. Below the smallest normal number it is 0, above the largest infinite. */
INLINE REAL exponential(REAL x) {
    const int wide = sizeof(REAL) == 8;
    const REAL low = wide ? -708 : -87, high = wide ? 709 : 88;
    const REAL magic = wide ? (REAL)6755399441055744.0 : (REAL)12582912.0; /* adding and subtracting it rounds to an integer */
    REAL y = x > low ? x : low;
    y = y < high ? y : high;
    const REAL n = (y * (REAL)1.4426950408889634 + magic) - magic;
    REAL r = y - n * (wide ? (REAL)6.93147180369123816490e-01 : (REAL)0.693145752);
    r = r - n * (wide ? (REAL)1.90821492927058770002e-10 : (REAL)1.42860677e-6);
    REAL p = 1;
#define TERM(k) p = p * (r * ((REAL)1 / k)) + 1;
    if (wide) {
        TERM(13) TERM(12) TERM(11) TERM(10) TERM(9) TERM(8)
    }
    TERM(7) TERM(6) TERM(5) TERM(4) TERM(3) TERM(2) TERM(1)
#undef TERM
    union {
        BITS i;
        REAL f;
    } power;
    power.i = (BITS)((int32_t)n + (wide ? 1023 : 127)) << (wide ? 52 : 23);
    REAL e = p * power.f;
    e = x < low ? 0 : e;
    e = x > high ? (REAL)INFINITY : e;
    return x != x ? x : e;
}

INLINE REAL magnitude(REAL x) { return x < 0 ? -x : x; }

INLINE REAL derivative(REAL d, int surrogate, REAL c0, REAL c1, REAL c2) {
    if (surrogate == RECTANGLE) return magnitude(d) < c0 ? c1 : 0;
    if (surrogate == LINEAR) {
        REAL h = c0 - c1 * magnitude(d);
        return (h < 0 ? 0 : h) * c2;
    }
    if (surrogate == SIGMOID) {
        REAL s = 1 / (1 + exponential(-c0 * d));
        return c0 * s * (1 - s);
    }
    if (surrogate == GAUSS) return exponential(-d * d * c0) * c1;
    if (surrogate == FAST_SIGMOID) {
        REAL z = 1 + c0 * magnitude(d);
        return c1 / (z * z);
    }
    REAL z = c0 * d;
    return c1 / (1 + z * z);
}

INLINE REAL fire(REAL d, int strict) {
    REAL s = (strict ? d > 0 : d >= 0) ? 1 : 0;
    return d != d ? d : s;
}

INLINE REAL after(REAL u, REAL s, REAL threshold, int reset) {
    if (reset == HARD) return u * (1 - s);
    return reset == SOFT ? u - threshold * s : u;
}

/* One block of `n` neurons through time. Writes the spikes `s` and the potentials `u` where given. `v` is the state. */
INLINE void lif_block(const REAL *x, idx x_stride, REAL *s, idx s_stride, REAL *u, idx u_stride, REAL *v, idx steps, idx n, REAL leak,
                      REAL gain, REAL threshold, int reset, int strict, int spikes, int keep) {
    for (idx t = 0; t < steps; t++) {
        const REAL *restrict now = x + t * x_stride;
        REAL *restrict out = s + t * s_stride;
        REAL *restrict kept = u + t * u_stride;
        REAL *restrict state = v;
#pragma GCC ivdep
        for (idx i = 0; i < n; i++) {
            REAL potential = leak * state[i] + gain * now[i];
            REAL spike = fire(potential - threshold, strict);
            if (spikes) out[i] = spike;
            if (keep) kept[i] = potential;
            state[i] = after(potential, spike, threshold, reset);
        }
    }
}

#define BY_RESET(call)                                 \
    switch (neuron->reset * 2 + neuron->strict) {      \
        case HARD * 2: call(HARD, 0); break;           \
        case HARD * 2 + 1: call(HARD, 1); break;       \
        case SOFT * 2: call(SOFT, 0); break;           \
        case SOFT * 2 + 1: call(SOFT, 1); break;       \
        case NONE * 2: call(NONE, 0); break;           \
        default: call(NONE, 1);                        \
    }

static void rest(REAL *v, const REAL *v0, REAL v_init, idx n) {
    for (idx i = 0; i < n; i++) v[i] = v0 ? v0[i] : v_init;
}

/* Spikes of the currents `x`; `u` (potentials), `v0` (state before) and `v1` (state after) may be null. */
void lif_forward(const Neuron *neuron, const Grid *grid, double leak_, double gain_, const REAL *x, idx x_stride, const REAL *v0, REAL *s,
                 REAL *u, REAL *v1) {
    const idx steps = grid->steps, size = grid->size;
    const REAL leak = (REAL)leak_, gain = (REAL)gain_, threshold = (REAL)neuron->threshold;
#pragma omp parallel for schedule(static) num_threads(grid->threads) if (grid->threads > 1)
    for (idx at = 0; at < size; at += grid->block) {
        REAL v[MAX_BLOCK];
        const idx n = size - at < grid->block ? size - at : grid->block;
        rest(v, v0 ? v0 + at : NULL, (REAL)neuron->v_init, n);
#define KEEPING(RESET, STRICT) lif_block(x + at, x_stride, s + at, size, u + at, size, v, steps, n, leak, gain, threshold, RESET, STRICT, 1, 1)
#define FORGETTING(RESET, STRICT) lif_block(x + at, x_stride, s + at, size, s, 0, v, steps, n, leak, gain, threshold, RESET, STRICT, 1, 0)
        if (u) {
            BY_RESET(KEEPING)
        } else {
            BY_RESET(FORGETTING)
        }
        if (v1) memcpy(v1 + at, v, n * sizeof(REAL));
    }
}

/* The recursion of a block backwards through time. `gv` is the gradient of the state, `sum` of the leak, per neuron. */
INLINE void lif_block_backward(const Neuron *neuron, const REAL *u, idx u_stride, const REAL *x, idx x_stride, const REAL *v0, const REAL *g,
                               idx g_stride, REAL *gx, idx gx_stride, REAL *gv, double *sum, int carried, idx steps, idx n, REAL leak,
                               REAL gain, int reset, int surrogate, int learn) {
    const REAL threshold = (REAL)neuron->threshold, v_init = (REAL)neuron->v_init;
    const REAL c0 = (REAL)neuron->c0, c1 = (REAL)neuron->c1, c2 = (REAL)neuron->c2;
    REAL slope[MAX_BLOCK];
    const int strict = neuron->strict, attached = neuron->attached, scaled = neuron->scaled;
    for (idx t = steps - 1; t >= 0; t--) {
        const REAL *restrict potential = u + t * u_stride;
        const REAL *restrict before = u + (t ? t - 1 : 0) * u_stride;
        const REAL *restrict now = x + t * x_stride;
        const REAL *restrict upstream = g + t * g_stride;
        REAL *restrict out = gx + t * gx_stride;
        REAL *restrict state = gv;
        double *restrict total = sum;
        const int joined = carried || t < steps - 1; /* whether the state after this step has a gradient at all */
        /* An exponential in the loop below would keep compilers from vectorising it. */
        const int apart = surrogate == SIGMOID || surrogate == GAUSS;
        if (apart) {
#pragma GCC ivdep
            for (idx i = 0; i < n; i++) slope[i] = derivative(potential[i] - threshold, surrogate, c0, c1, c2);
        }
#pragma GCC ivdep
        for (idx i = 0; i < n; i++) {
            REAL d = potential[i] - threshold;
            REAL s = fire(d, strict);
            REAL through = reset == HARD ? state[i] * (1 - s) : state[i];
            REAL at_spike = upstream[i];
            if (reset == HARD) at_spike = attached && joined ? at_spike - state[i] * potential[i] : at_spike;
            if (reset == SOFT) at_spike = attached && joined ? at_spike - state[i] * threshold : at_spike;
            REAL h = apart ? slope[i] : derivative(d, surrogate, c0, c1, c2);
            REAL gu = at_spike * h + (joined ? through : 0);
            if (learn) {
                REAL v = v_init;
                if (t) v = after(before[i], fire(before[i] - threshold, strict), threshold, reset);
                else if (v0) v = v0[i];
                total[i] += (double)gu * v;
                if (scaled) total[i] -= (double)gu * now[i];
            }
            out[i] = gain * gu;
            state[i] = leak * gu;
        }
    }
}

#define BY_SURROGATE(RESET, LEARN)                        \
    switch (neuron->surrogate) {                          \
        case RECTANGLE: BACKWARD(RESET, RECTANGLE, LEARN) \
        case LINEAR: BACKWARD(RESET, LINEAR, LEARN)       \
        case SIGMOID: BACKWARD(RESET, SIGMOID, LEARN)     \
        case GAUSS: BACKWARD(RESET, GAUSS, LEARN)         \
        case ARCTAN: BACKWARD(RESET, ARCTAN, LEARN)       \
        default: BACKWARD(RESET, FAST_SIGMOID, LEARN)     \
    }

#define BACKWARD(RESET, SURROGATE, LEARN)                                                                                               \
    lif_block_backward(neuron, potential, u_stride, learn_x, x_stride, v0 ? v0 + at : NULL, g + at, g_stride, gx + at, size, gv, total, \
                       gv1 != NULL, steps, n, leak, gain, RESET, SURROGATE, LEARN);                                                     \
    break;

/* Gradients of the currents, of the state before (`gv0`, may be null) and of the leak (`gleak`, a number per block, may be null), from
 * those of the spikes (`g`) and of the state after (`gv1`, may be null). Of `u` and `x` one may be null: without potentials they are
 * recomputed from the currents; currents are needed only for that, and for the leak of a scaled input. Returns 0, or 1 without memory. */
int lif_backward(const Neuron *neuron, const Grid *grid, double leak_, double gain_, const REAL *u, const REAL *x, idx x_stride,
                 const REAL *v0, const REAL *g, idx g_stride, const REAL *gv1, REAL *gx, REAL *gv0, double *gleak) {
    const idx steps = grid->steps, size = grid->size;
    const REAL leak = (REAL)leak_, gain = (REAL)gain_, threshold = (REAL)neuron->threshold;
    int failed = 0;
#pragma omp parallel num_threads(grid->threads) if (grid->threads > 1)
    {
        REAL *scratch = u ? NULL : malloc((size_t)steps * grid->block * sizeof(REAL));
        if (!u && !scratch) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (idx at = 0; at < size; at += grid->block) {
            REAL v[MAX_BLOCK], gv[MAX_BLOCK];
            double total[MAX_BLOCK];
            if (!u && !scratch) continue;
            const idx n = size - at < grid->block ? size - at : grid->block;
            const REAL *potential = u ? u + at : scratch;
            const idx u_stride = u ? size : grid->block;
            const REAL *learn_x = x ? x + at : NULL;
            if (!u) {
                rest(v, v0 ? v0 + at : NULL, (REAL)neuron->v_init, n);
#define RECOMPUTING(RESET, STRICT) \
    lif_block(x + at, x_stride, scratch, 0, scratch, grid->block, v, steps, n, leak, gain, threshold, RESET, STRICT, 0, 1)
                BY_RESET(RECOMPUTING)
            }
            rest(gv, gv1 ? gv1 + at : NULL, 0, n);
            if (gleak) {
                for (idx i = 0; i < n; i++) total[i] = 0;
                switch (neuron->reset) {
                    case HARD: BY_SURROGATE(HARD, 1) break;
                    case SOFT: BY_SURROGATE(SOFT, 1) break;
                    default: BY_SURROGATE(NONE, 1)
                }
                double all = 0; /* in order, whatever the number of threads */
                for (idx i = 0; i < n; i++) all += total[i];
                gleak[at / grid->block] = all;
            } else {
                switch (neuron->reset) {
                    case HARD: BY_SURROGATE(HARD, 0) break;
                    case SOFT: BY_SURROGATE(SOFT, 0) break;
                    default: BY_SURROGATE(NONE, 0)
                }
            }
            if (gv0) memcpy(gv0 + at, gv, n * sizeof(REAL));
        }
        free(scratch);
    }
    return failed;
}

/* h[t] = a[t] h[t-1] + b[t], from h0 (null: zeros). A stride of 0 is a factor that is constant over time. */
void recurrence_forward(const Grid *grid, const REAL *a, idx a_stride, const REAL *b, idx b_stride, const REAL *h0, REAL *h) {
    const idx steps = grid->steps, size = grid->size;
#pragma omp parallel for schedule(static) num_threads(grid->threads) if (grid->threads > 1)
    for (idx at = 0; at < size; at += grid->block) {
        REAL v[MAX_BLOCK];
        const idx n = size - at < grid->block ? size - at : grid->block;
        rest(v, h0 ? h0 + at : NULL, 0, n);
        for (idx t = 0; t < steps; t++) {
            const REAL *restrict factor = a + at + t * a_stride;
            const REAL *restrict input = b + at + t * b_stride;
            REAL *restrict out = h + at + t * size;
#pragma GCC ivdep
            for (idx i = 0; i < n; i++) out[i] = v[i] = factor[i] * v[i] + input[i];
        }
    }
}

/* Gradients of b (`gb`), of a (per step `ga`, or summed over time in `ga_sum`; both may be null) and of h0 (`gh0`, may be null). */
void recurrence_backward(const Grid *grid, const REAL *a, idx a_stride, const REAL *h, const REAL *h0, const REAL *g, idx g_stride, REAL *gb,
                         REAL *ga, double *ga_sum, REAL *gh0) {
    const idx steps = grid->steps, size = grid->size;
#pragma omp parallel for schedule(static) num_threads(grid->threads) if (grid->threads > 1)
    for (idx at = 0; at < size; at += grid->block) {
        REAL v[MAX_BLOCK], first[MAX_BLOCK];
        double total[MAX_BLOCK];
        const idx n = size - at < grid->block ? size - at : grid->block;
        rest(v, NULL, 0, n);
        rest(first, h0 ? h0 + at : NULL, 0, n);
        for (idx i = 0; i < n; i++) total[i] = 0;
        for (idx t = steps - 1; t >= 0; t--) {
            const REAL *restrict factor = a + at + t * a_stride;
            const REAL *restrict upstream = g + at + t * g_stride;
            const REAL *restrict before = t ? h + at + (t - 1) * size : first;
            REAL *restrict out = gb + at + t * size;
            if (ga) {
                REAL *restrict slope = ga + at + t * size;
#pragma GCC ivdep
                for (idx i = 0; i < n; i++) {
                    REAL now = upstream[i] + v[i];
                    out[i] = now;
                    slope[i] = now * before[i];
                    v[i] = factor[i] * now;
                }
            } else if (ga_sum) {
#pragma GCC ivdep
                for (idx i = 0; i < n; i++) {
                    REAL now = upstream[i] + v[i];
                    out[i] = now;
                    total[i] += (double)now * before[i];
                    v[i] = factor[i] * now;
                }
            } else {
#pragma GCC ivdep
                for (idx i = 0; i < n; i++) {
                    REAL now = upstream[i] + v[i];
                    out[i] = now;
                    v[i] = factor[i] * now;
                }
            }
        }
        if (ga_sum) memcpy(ga_sum + at, total, n * sizeof(double));
        if (gh0) memcpy(gh0 + at, v, n * sizeof(REAL));
    }
}
