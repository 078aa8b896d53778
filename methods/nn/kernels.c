/* Native CPU kernels of the neuron family (symbols: methods/nn/neuron.py), of the linear recurrence (methods/nn/recurrence.py), of
 * neurons whose potentials pass attention gates (methods/nn/attentive_lif.py), and of neurons with a dynamic decay.
 *
 * A sequence is [steps, size]: `size` numbers of one step lie side by side in any order of the inner dimensions, and successive steps
 * are a stride apart (0 for an input that is the same at every step). The outer loop goes over blocks of neurons, in parallel; the inner
 * one over time, with the state of a block in the first-level cache, so that every number passes through memory once each way. A row is
 * one step of one block; every option of a neuron is a loop over a row, or an input of one.
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
#define MAX_RICH 1024 /* the block of a neuron with options: it has more rows in the cache */
#define INLINE static inline __attribute__((always_inline))

typedef ptrdiff_t idx;

enum { HARD, SOFT, NONE, HARD_ATTACHED, SOFT_ATTACHED };
enum { RECTANGLE, LINEAR, SIGMOID, GAUSS, ARCTAN, FAST_SIGMOID }; /* triangle and polynomial are LINEAR: max(0, c0 - c1 |d|) c2 */

/* `refractory`: steps of silence after a spike. `planes`: bits per neuron-step where spikes are packed. */
typedef struct {
    int32_t reset, attached, strict, surrogate, scaled, refractory, planes;
    double v_init, c0, c1, c2;
} Neuron;

/* What a layer may learn: numbers, or where the pointers are not null one per channel. */
typedef struct {
    double leak, gain, threshold;
    const REAL *leaks, *thresholds;
} Values;

/* Where the blocks of a sequence lie: `steps` rows of `size` numbers, worked on in columns of `block`, by `threads` threads. Neuron i of a
 * step is of channel i / inner % channels (channels 0: no channels). `half`: currents, spikes and their gradients are bfloat16. */
typedef struct {
    idx steps, size, block, channels, inner;
    int32_t threads, half;
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

static void fill(REAL *v, const REAL *from, REAL value, idx n) {
    for (idx i = 0; i < n; i++) v[i] = from ? from[i] : value;
}

static void widen(const uint16_t *from, REAL *to, idx n) {
    for (idx i = 0; i < n; i++) {
        union {
            uint32_t i;
            float f;
        } wide = {(uint32_t)from[i] << 16};
        to[i] = wide.f;
    }
}

/* To the nearest bfloat16, ties to even. */
static void narrow(const REAL *from, uint16_t *to, idx n) {
    for (idx i = 0; i < n; i++) {
        union {
            float f;
            uint32_t i;
        } wide = {(float)from[i]};
        to[i] = wide.f != wide.f ? 0x7fc0 : (wide.i + 0x7fff + (wide.i >> 16 & 1)) >> 16;
    }
}

/* The row of `n` numbers at element `at` of an array of REAL, or of bfloat16, which `buffer` takes. */
INLINE const REAL *row_of(const void *array, idx at, int half, REAL *buffer, idx n) {
    if (!half) return (const REAL *)array + at;
    widen((const uint16_t *)array + at, buffer, n);
    return buffer;
}

/* Packed rows: of each step the spikes (with two planes) and whether u lies in the window of a rectangle. With two planes, a last row has
 * the neurons whose u is not a number at the end. From the first such step on u never is one again, so that both planes are free: the
 * first step has 0 and 1, later ones 1 and 0, and reading from the end finds the first. `lost` is the state of this. */
static void put(uint8_t *to, const uint8_t *flags, idx n) {
    for (idx i = 0; i < n; i += 8) {
        uint8_t byte = 0;
        for (idx j = 0; j < 8; j++) byte |= (uint8_t)(flags[i + j] << j);
        to[i / 8] = byte;
    }
}

static void get(const uint8_t *from, uint8_t *flags, idx n) {
    for (idx i = 0; i < n; i += 8) {
        for (idx j = 0; j < 8; j++) flags[i + j] = from[i / 8] >> j & 1;
    }
}

static void pack(uint8_t *to, idx width, int planes, const REAL *u, const REAL *threshold, REAL half_window, int strict, uint8_t *lost,
                 idx n) {
    uint8_t spike[MAX_RICH + 8] = {0}, inside[MAX_RICH + 8] = {0};
    for (idx i = 0; i < n; i++) {
        REAL d = u[i] - threshold[i];
        uint8_t none = d != d, s = strict ? d > 0 : d >= 0, in = magnitude(d) < half_window;
        spike[i] = none ? lost[i] : s;
        inside[i] = none && planes == 2 ? !lost[i] : in;
        lost[i] |= none;
    }
    if (planes == 2) put(to, spike, n);
    put(to + (planes - 1) * width, inside, n);
}

/* Distances from the threshold that have the spikes and the window that were packed. */
static void unpack(const uint8_t *from, idx width, int planes, REAL half_window, uint8_t *lost, REAL *d, idx n) {
    uint8_t spike[MAX_RICH + 8], inside[MAX_RICH + 8];
    if (planes == 2) get(from, spike, n);
    else memset(spike, 0, sizeof spike);
    get(from + (planes - 1) * width, inside, n);
    const REAL near = half_window / 2, far = 2 * half_window;
    for (idx i = 0; i < n; i++) {
        REAL size = inside[i] ? near : far;
        d[i] = lost[i] ? (REAL)NAN : spike[i] ? size : -size;
        lost[i] &= !(inside[i] && !spike[i]);
    }
}

/* What a row of a neuron with options needs beside the current. `live`: 1 where it is not refractory. */
typedef struct {
    REAL leak[MAX_RICH], gain[MAX_RICH], threshold[MAX_RICH], live[MAX_RICH];
} Rich;

static void enrich(Rich *rich, const Neuron *neuron, const Values *values, const Grid *grid, idx at, idx n) {
    const idx channels = grid->channels ? grid->channels : 1, inner = grid->inner;
    idx channel = at / inner % channels, left = inner - at % inner;
    for (idx i = 0; i < n; i++) {
        rich->leak[i] = values->leaks ? values->leaks[channel] : (REAL)values->leak;
        rich->gain[i] = !values->leaks ? (REAL)values->gain : neuron->scaled ? 1 - rich->leak[i] : 1;
        rich->threshold[i] = values->thresholds ? values->thresholds[channel] : (REAL)values->threshold;
        if (--left == 0) {
            left = inner;
            if (++channel == channels) channel = 0;
        }
    }
}

INLINE void plain_row(const REAL *restrict now, REAL *restrict out, REAL *restrict kept, REAL *restrict state, idx n, REAL leak, REAL gain,
                      REAL threshold, int reset, int strict, int spikes, int keep) {
#pragma GCC ivdep
    for (idx i = 0; i < n; i++) {
        REAL potential = leak * state[i] + gain * now[i];
        REAL spike = fire(potential - threshold, strict);
        if (spikes) out[i] = spike;
        if (keep) kept[i] = potential;
        state[i] = after(potential, spike, threshold, reset);
    }
}

/* `count`: steps that are still to be silent. */
INLINE void rich_row(const REAL *restrict now, REAL *restrict out, REAL *restrict kept, REAL *restrict state, REAL *restrict count, idx n,
                     Rich *restrict rich, REAL refractory, REAL tie, int reset) {
#pragma GCC ivdep
    for (idx i = 0; i < n; i++) {
        REAL potential = rich->leak[i] * state[i] + rich->gain[i] * now[i];
        REAL d = potential - rich->threshold[i];
        REAL spike = d > 0 ? 1 : d == 0 ? tie : 0;
        spike = d != d ? d : spike;
        REAL next = after(potential, spike, rich->threshold[i], reset);
        REAL waiting = count[i];
        REAL begun = spike > 0 ? refractory : 0;
        kept[i] = potential;
        out[i] = waiting > 0 ? 0 : spike;
        state[i] = waiting > 0 ? state[i] : next;
        count[i] = waiting > 0 ? waiting - 1 : begun;
        rich->live[i] = waiting > 0 ? 0 : 1;
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

/* A step forward without options; `out` or `kept` may be null, not both. */
static void plain_step(const Neuron *neuron, const REAL *now, REAL *out, REAL *kept, REAL *state, idx n, REAL leak, REAL gain,
                       REAL threshold) {
#define BOTH(RESET, STRICT) plain_row(now, out, kept, state, n, leak, gain, threshold, RESET, STRICT, 1, 1)
#define SPIKES(RESET, STRICT) plain_row(now, out, kept, state, n, leak, gain, threshold, RESET, STRICT, 1, 0)
#define POTENTIALS(RESET, STRICT) plain_row(now, out, kept, state, n, leak, gain, threshold, RESET, STRICT, 0, 1)
    if (!kept) {
        BY_RESET(SPIKES)
    } else if (out) {
        BY_RESET(BOTH)
    } else {
        BY_RESET(POTENTIALS)
    }
}

static void rich_step(const Neuron *neuron, const REAL *now, REAL *out, REAL *kept, REAL *state, REAL *count, idx n, Rich *rich) {
    const REAL refractory = neuron->refractory, tie = neuron->strict ? 0 : 1;
    if (neuron->reset == HARD) rich_row(now, out, kept, state, count, n, rich, refractory, tie, HARD);
    else if (neuron->reset == SOFT) rich_row(now, out, kept, state, count, n, rich, refractory, tie, SOFT);
    else rich_row(now, out, kept, state, count, n, rich, refractory, tie, NONE);
}

/* Whether a neuron is more than a leak, a gain and a threshold that all have in common; the Python side makes blocks of MAX_RICH then. */
INLINE int options(const Neuron *neuron, const Grid *grid) { return grid->channels || grid->half || neuron->refractory || neuron->planes; }

/* Spikes of the currents `x`; `u` (potentials), `bits` (packed), `v0`, `r0` (state and silence before), `v1`, `r1` (after) may be null. */
void lif_forward(const Neuron *neuron, const Grid *grid, const Values *values, const void *x, idx x_stride, const REAL *v0, const REAL *r0,
                 void *s, REAL *u, uint8_t *bits, REAL *v1, REAL *r1) {
    const idx steps = grid->steps, size = grid->size, width = (size + 7) / 8;
    const REAL leak = (REAL)values->leak, gain = (REAL)values->gain, threshold = (REAL)values->threshold, v_init = (REAL)neuron->v_init;
    const int half = grid->half, rich_kind = options(neuron, grid);
#pragma omp parallel for schedule(static) num_threads(grid->threads) if (grid->threads > 1)
    for (idx at = 0; at < size; at += grid->block) {
        REAL v[MAX_BLOCK];
        const idx n = size - at < grid->block ? size - at : grid->block;
        fill(v, v0 ? v0 + at : NULL, v_init, n);
        if (rich_kind) {
            Rich rich;
            REAL count[MAX_RICH], in[MAX_RICH], out[MAX_RICH], kept[MAX_RICH];
            uint8_t lost[MAX_RICH + 8] = {0};
            enrich(&rich, neuron, values, grid, at, n);
            fill(count, r0 ? r0 + at : NULL, 0, n);
            for (idx t = 0; t < steps; t++) {
                const REAL *now = row_of(x, at + t * x_stride, half, in, n);
                REAL *potential = u ? u + at + t * size : kept;
                rich_step(neuron, now, half ? out : (REAL *)s + at + t * size, potential, v, count, n, &rich);
                if (half) narrow(out, (uint16_t *)s + at + t * size, n);
                if (bits) {
                    uint8_t *to = bits + t * neuron->planes * width + at / 8;
                    pack(to, width, neuron->planes, potential, rich.threshold, (REAL)neuron->c0, neuron->strict, lost, n);
                }
            }
            if (bits && neuron->planes == 2) put(bits + steps * 2 * width + at / 8, lost, n);
            if (r1) memcpy(r1 + at, count, n * sizeof(REAL));
        } else {
            for (idx t = 0; t < steps; t++) {
                const REAL *now = (const REAL *)x + at + t * x_stride;
                plain_step(neuron, now, (REAL *)s + at + t * size, u ? u + at + t * size : NULL, v, n, leak, gain, threshold);
            }
        }
        if (v1) memcpy(v1 + at, v, n * sizeof(REAL));
    }
}

#define SLOPE(KIND) \
    for (idx i = 0; i < n; i++) h[i] = derivative(u[i] - (offset ? offset[i] : threshold), KIND, c0, c1, c2);

/* The surrogate of a row of potentials, less `offset` where it is not null and else `threshold`. */
static void slopes(const Neuron *neuron, const REAL *restrict u, const REAL *restrict offset, REAL threshold, REAL *restrict h, idx n) {
    const REAL c0 = (REAL)neuron->c0, c1 = (REAL)neuron->c1, c2 = (REAL)neuron->c2;
    switch (neuron->surrogate) {
        case RECTANGLE: SLOPE(RECTANGLE) break;
        case LINEAR: SLOPE(LINEAR) break;
        case SIGMOID: SLOPE(SIGMOID) break;
        case GAUSS: SLOPE(GAUSS) break;
        case ARCTAN: SLOPE(ARCTAN) break;
        default: SLOPE(FAST_SIGMOID)
    }
}

/* The recursion of a row backwards in time: `gv`, the gradient of the state after it, becomes that of the state before. `reset` is NONE
 * for a last step whose state goes nowhere: what is 0 there must not meet an infinite potential. An exponential would keep compilers from
 * vectorising the loop, so that those surrogates come from `h`. */
INLINE void plain_back(const Neuron *neuron, const REAL *restrict u, const REAL *restrict upstream, const REAL *restrict h,
                       REAL *restrict out, REAL *restrict state, idx n, REAL leak, REAL gain, REAL threshold, int reset, int strict,
                       int surrogate) {
    const REAL c0 = (REAL)neuron->c0, c1 = (REAL)neuron->c1, c2 = (REAL)neuron->c2;
#pragma GCC ivdep
    for (idx i = 0; i < n; i++) {
        REAL d = u[i] - threshold, through = state[i], at_spike = upstream[i];
        if (reset == HARD || reset == HARD_ATTACHED) through = state[i] * (1 - fire(d, strict));
        if (reset == HARD_ATTACHED) at_spike = at_spike - state[i] * u[i];
        if (reset == SOFT_ATTACHED) at_spike = at_spike - state[i] * threshold;
        REAL gu = at_spike * (surrogate == SIGMOID ? h[i] : derivative(d, surrogate, c0, c1, c2)) + through;
        out[i] = gain * gu;
        state[i] = leak * gu;
    }
}

#define BY_KIND(call)                                    \
    switch (kind) {                                      \
        case HARD: call(HARD); break;                    \
        case SOFT: call(SOFT); break;                    \
        case HARD_ATTACHED: call(HARD_ATTACHED); break;  \
        case SOFT_ATTACHED: call(SOFT_ATTACHED); break;  \
        default: call(NONE);                             \
    }

static void plain_step_back(const Neuron *neuron, const REAL *u, const REAL *upstream, REAL *h, REAL *out, REAL *state, idx n, REAL leak,
                            REAL gain, REAL threshold, int kind) {
#define BACK(KIND, STRICT, SURROGATE) plain_back(neuron, u, upstream, h, out, state, n, leak, gain, threshold, KIND, STRICT, SURROGATE)
#define BY_SPIKE(SURROGATE)                                               \
    switch (kind * 2 + (kind % HARD_ATTACHED == HARD && neuron->strict)) { \
        case HARD * 2: BACK(HARD, 0, SURROGATE); break;                   \
        case HARD * 2 + 1: BACK(HARD, 1, SURROGATE); break;               \
        case HARD_ATTACHED * 2: BACK(HARD_ATTACHED, 0, SURROGATE); break; \
        case HARD_ATTACHED * 2 + 1: BACK(HARD_ATTACHED, 1, SURROGATE); break; \
        case SOFT * 2: BACK(SOFT, 0, SURROGATE); break;                   \
        case SOFT_ATTACHED * 2: BACK(SOFT_ATTACHED, 0, SURROGATE); break; \
        default: BACK(NONE, 0, SURROGATE);                                \
    }
    switch (neuron->surrogate) {
        case RECTANGLE: BY_SPIKE(RECTANGLE) break;
        case LINEAR: BY_SPIKE(LINEAR) break;
        case ARCTAN: BY_SPIKE(ARCTAN) break;
        case FAST_SIGMOID: BY_SPIKE(FAST_SIGMOID) break;
        default: slopes(neuron, u, NULL, threshold, h, n); BY_SPIKE(SIGMOID)
    }
}

/* The same with options. `offset` is the threshold, or 0 where `u` are distances from it already. `out` gets the gradient of u itself;
 * `slope` adds up that of the threshold. */
INLINE void rich_back(const REAL *restrict u, const REAL *restrict offset, const REAL *restrict upstream, const REAL *restrict h,
                      REAL *restrict out, REAL *restrict state, double *restrict slope, idx n, const Rich *restrict rich, REAL tie,
                      int reset) {
#pragma GCC ivdep
    for (idx i = 0; i < n; i++) {
        REAL d = u[i] - offset[i], gv = state[i];
        REAL s = d > 0 ? 1 : d == 0 ? tie : 0;
        s = d != d ? d : s;
        REAL through = gv, at_spike = upstream[i], at_threshold = 0;
        if (reset == HARD || reset == HARD_ATTACHED) through = gv * (1 - s);
        if (reset == HARD_ATTACHED) at_spike = at_spike - gv * u[i];
        if (reset == SOFT_ATTACHED) at_spike = at_spike - gv * rich->threshold[i];
        if (reset == SOFT || reset == SOFT_ATTACHED) at_threshold = gv * s;
        REAL spiked = at_spike * h[i];
        REAL gu = spiked + through, live = rich->live[i];
        double lowered = -(double)spiked - (double)at_threshold;
        out[i] = live > 0 ? gu : 0;
        state[i] = live > 0 ? rich->leak[i] * gu : gv;
        slope[i] += live > 0 ? lowered : 0;
    }
}

static void rich_step_back(const REAL *u, const REAL *offset, const REAL *upstream, const REAL *h, REAL *out, REAL *state, double *slope,
                           idx n, const Rich *rich, REAL tie, int kind) {
#define RICHLY(KIND) rich_back(u, offset, upstream, h, out, state, slope, n, rich, tie, KIND)
    BY_KIND(RICHLY)
}

/* The state after a row of potentials. */
static void resting(const Neuron *neuron, const REAL *restrict u, const REAL *restrict threshold, REAL *restrict v, idx n) {
    const int strict = neuron->strict;
#define STATE(RESET) \
    for (idx i = 0; i < n; i++) v[i] = after(u[i], fire(u[i] - threshold[i], strict), threshold[i], RESET)
    if (neuron->reset == HARD) STATE(HARD);
    else if (neuron->reset == SOFT) STATE(SOFT);
    else STATE(NONE);
}

/* The sum of a block, in order, whatever the number of threads; or where there are channels each neuron's own. */
static void collect(const double *total, double *to, const Grid *grid, idx at, idx n) {
    if (grid->channels) {
        memcpy(to + at, total, n * sizeof(double));
        return;
    }
    double all = 0;
    for (idx i = 0; i < n; i++) all += total[i];
    to[at / grid->block] = all;
}

/* A block of a neuron with options, or with something to learn. `scratch` (null with `u` or `bits`) takes the potentials, and for a
 * refractory neuron the states before each step and where it is live. */
static void rich_block_back(const Neuron *neuron, const Grid *grid, const Values *values, const REAL *u, const uint8_t *bits, const void *x,
                            idx x_stride, const REAL *v0, const REAL *r0, const void *g, idx g_stride, int carried, void *gx, REAL *gv,
                            double *gleak, double *gthreshold, REAL *scratch, idx at, idx n) {
    const idx steps = grid->steps, size = grid->size, width = (size + 7) / 8, block = grid->block;
    const int half = grid->half, planes = neuron->planes, refractory = neuron->refractory;
    const REAL tie = neuron->strict ? 0 : 1, v_init = (REAL)neuron->v_init;
    REAL in[MAX_RICH], upstream[MAX_RICH], gu[MAX_RICH], h[MAX_RICH], v[MAX_RICH], count[MAX_RICH], nought[MAX_RICH], kept[MAX_RICH];
    double leak_total[MAX_RICH], threshold_total[MAX_RICH];
    uint8_t lost[MAX_RICH + 8] = {0};
    Rich rich;
    enrich(&rich, neuron, values, grid, at, n);
    fill(rich.live, NULL, 1, n);
    fill(nought, NULL, 0, n);
    for (idx i = 0; i < n; i++) leak_total[i] = threshold_total[i] = 0;
    REAL *states = scratch + steps * block, *lives = states + steps * block;
    if (!u && !bits) {
        fill(v, v0 ? v0 + at : NULL, v_init, n);
        fill(count, r0 ? r0 + at : NULL, 0, n);
        for (idx t = 0; t < steps; t++) {
            if (refractory) memcpy(states + t * block, v, n * sizeof(REAL));
            rich_step(neuron, row_of(x, at + t * x_stride, half, in, n), h, scratch + t * block, v, count, n, &rich);
            if (refractory) memcpy(lives + t * block, rich.live, n * sizeof(REAL));
        }
        fill(rich.live, NULL, 1, n);
    }
    if (planes == 2) get(bits + steps * 2 * width + at / 8, lost, n);
    for (idx t = steps - 1; t >= 0; t--) {
        const REAL *potential = u ? u + at + t * size : scratch + t * block, *offset = bits ? nought : rich.threshold;
        if (bits) {
            unpack(bits + t * planes * width + at / 8, width, planes, (REAL)neuron->c0, lost, kept, n);
            potential = kept;
        }
        if (refractory) memcpy(rich.live, lives + t * block, n * sizeof(REAL));
        const int joined = carried || t < steps - 1;
        const int attached = neuron->attached && neuron->reset != NONE;
        const int kind = !joined ? NONE : attached ? neuron->reset + HARD_ATTACHED : neuron->reset;
        slopes(neuron, potential, offset, 0, h, n);
        const REAL *from = row_of(g, at + t * g_stride, half, upstream, n);
        rich_step_back(potential, offset, from, h, gu, gv, threshold_total, n, &rich, tie, kind);
        if (gleak) {
            const REAL *before = states + t * block;
            if (!refractory) {
                if (t) resting(neuron, u ? u + at + (t - 1) * size : scratch + (t - 1) * block, rich.threshold, v, n);
                else fill(v, v0 ? v0 + at : NULL, v_init, n);
                before = v;
            }
            for (idx i = 0; i < n; i++) leak_total[i] += (double)gu[i] * before[i];
            if (neuron->scaled) {
                const REAL *now = row_of(x, at + t * x_stride, half, in, n);
                for (idx i = 0; i < n; i++) leak_total[i] -= (double)gu[i] * now[i];
            }
        }
        REAL *out = half ? gu : (REAL *)gx + at + t * size;
        for (idx i = 0; i < n; i++) out[i] = rich.gain[i] * gu[i];
        if (half) narrow(out, (uint16_t *)gx + at + t * size, n);
    }
    if (gleak) collect(leak_total, gleak, grid, at, n);
    if (gthreshold) collect(threshold_total, gthreshold, grid, at, n);
}

/* Gradients of the currents, of the state before (`gv0`, may be null), and of leak and threshold (a number per block, or with channels
 * per neuron; may be null), from those of the spikes (`g`) and of the state after (`gv1`, may be null). Of potentials `u`, packed `bits`
 * and currents `x` one was kept: from currents potentials are computed again. A leak is not learnt from bits, and with a scaled input it
 * needs the currents. Returns 0, or 1 without memory. */
int lif_backward(const Neuron *neuron, const Grid *grid, const Values *values, const REAL *u, const uint8_t *bits, const void *x,
                 idx x_stride, const REAL *v0, const REAL *r0, const void *g, idx g_stride, const REAL *gv1, void *gx, REAL *gv0,
                 double *gleak, double *gthreshold) {
    const idx steps = grid->steps, size = grid->size, rows = neuron->refractory ? 3 : 1;
    const REAL leak = (REAL)values->leak, gain = (REAL)values->gain, threshold = (REAL)values->threshold;
    const int again = !u && !bits, rich_kind = options(neuron, grid) || gleak || gthreshold;
    int failed = 0;
#pragma omp parallel num_threads(grid->threads) if (grid->threads > 1)
    {
        REAL *scratch = again ? malloc((size_t)(rows * steps * grid->block) * sizeof(REAL)) : NULL;
        if (again && !scratch) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (idx at = 0; at < size; at += grid->block) {
            REAL gv[MAX_BLOCK];
            if (again && !scratch) continue;
            const idx n = size - at < grid->block ? size - at : grid->block;
            fill(gv, gv1 ? gv1 + at : NULL, 0, n);
            if (rich_kind) {
                rich_block_back(neuron, grid, values, u, bits, x, x_stride, v0, r0, g, g_stride, gv1 != NULL, gx, gv, gleak, gthreshold,
                                scratch, at, n);
            } else {
                REAL v[MAX_BLOCK], h[MAX_BLOCK];
                if (again) {
                    fill(v, v0 ? v0 + at : NULL, (REAL)neuron->v_init, n);
                    for (idx t = 0; t < steps; t++) {
                        const REAL *now = (const REAL *)x + at + t * x_stride;
                        plain_step(neuron, now, NULL, scratch + t * grid->block, v, n, leak, gain, threshold);
                    }
                }
                for (idx t = steps - 1; t >= 0; t--) {
                    const REAL *potential = u ? u + at + t * size : scratch + t * grid->block;
                    const int attached = neuron->attached && neuron->reset != NONE;
                    const int kind = !gv1 && t == steps - 1 ? NONE : attached ? neuron->reset + HARD_ATTACHED : neuron->reset;
                    plain_step_back(neuron, potential, (const REAL *)g + at + t * g_stride, h, (REAL *)gx + at + t * size, gv, n, leak,
                                    gain, threshold, kind);
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
        fill(v, h0 ? h0 + at : NULL, 0, n);
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
        fill(v, NULL, 0, n);
        fill(first, h0 ? h0 + at : NULL, 0, n);
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

/* Neurons with attention (methods/nn/attentive_lif.py). A step is [samples, places, channels], channels side by side; samples are independent, so
 * that the outer loop goes over them and a sample's state stays in the cache. `hidden`: units of the channel gate, 0 without one; `spatial`:
 * whether there is a spatial gate. */
typedef struct {
    idx steps, samples, places, channels, hidden;
    int32_t spatial, threads;
    double leak, threshold;
} Field;

/* What the gates learn: weight [C], bias [1], squeeze [hidden, C], excite [C, hidden]. */
typedef struct {
    const REAL *weight, *bias, *squeeze, *excite;
} Gates;

/* What the gates of a step were, per sample: space [P], channel [C], and in the channel gate pooled [C] and inner [hidden]. */
typedef struct {
    REAL *space, *channel, *pooled, *inner;
} Opened;

INLINE REAL sigmoid(REAL x) { return 1 / (1 + exponential(-x)); }

static Opened row_of_gates(const Opened *all, const Field *field, idx at) {
    Opened row = {all->space + at * field->places, all->channel + at * field->channels, all->pooled + at * field->channels,
                  all->inner + at * field->hidden};
    return row;
}

/* The gates that follow the spikes `s` of a sample; one that is absent is 1. */
static void open_gates(const Field *field, const Gates *gates, const REAL *restrict s, const Opened *to) {
    const idx places = field->places, channels = field->channels, hidden = field->hidden;
    REAL *restrict pooled = to->pooled, *restrict space = to->space, *restrict channel = to->channel;
    for (idx p = 0; p < places; p++) {
        REAL sum = 0;
        if (field->spatial) {
#pragma omp simd reduction(+ : sum)
            for (idx c = 0; c < channels; c++) sum += gates->weight[c] * s[p * channels + c];
        }
        space[p] = field->spatial ? sum + gates->bias[0] : 0;
    }
    for (idx p = 0; p < places; p++) space[p] = field->spatial ? sigmoid(space[p]) : 1;
    if (!hidden) {
        fill(channel, NULL, 1, channels);
        return;
    }
    fill(pooled, NULL, 0, channels);
    for (idx p = 0; p < places; p++) {
#pragma GCC ivdep
        for (idx c = 0; c < channels; c++) pooled[c] += s[p * channels + c];
    }
    for (idx c = 0; c < channels; c++) pooled[c] /= (REAL)places;
    for (idx j = 0; j < hidden; j++) {
        REAL sum = 0;
#pragma omp simd reduction(+ : sum)
        for (idx c = 0; c < channels; c++) sum += gates->squeeze[j * channels + c] * pooled[c];
        to->inner[j] = sum < 0 ? 0 : sum;
    }
    for (idx c = 0; c < channels; c++) {
        REAL sum = 0;
        for (idx j = 0; j < hidden; j++) sum += gates->excite[c * hidden + j] * to->inner[j];
        channel[c] = sigmoid(sum);
    }
}

/* Spikes of the currents `x`. Potentials `u` and the gates are kept for every step, or (`keep` 0) for the last one only. `v0`, `s0` (state
 * before) and `v1` (potentials after) may be null; `scaled` takes [samples, C]. */
void attentive_forward(const Neuron *neuron, const Field *field, const Gates *gates, const REAL *x, const REAL *v0, const REAL *s0, int keep,
                       REAL *s, REAL *u, const Opened *opened, REAL *scaled, REAL *v1) {
    const idx channels = field->channels, places = field->places, n = places * channels, size = n * field->samples;
    const REAL leak = (REAL)field->leak, threshold = (REAL)field->threshold;
    const int strict = neuron->strict;
#pragma omp parallel for schedule(static) num_threads(field->threads) if (field->threads > 1)
    for (idx b = 0; b < field->samples; b++) {
        REAL *restrict beta = scaled + b * channels;
        for (idx t = 0; t < field->steps; t++) {
            const REAL *restrict now = x + t * size + b * n;
            REAL *potential = u + (keep ? t * size : 0) + b * n, *out = s + t * size + b * n;
            const int begun = t > 0 || v0 != NULL;
            if (begun) {
                const REAL *before = t ? out - size : s0 + b * n, *rest = t ? (keep ? potential - size : potential) : v0 + b * n;
                Opened row = row_of_gates(opened, field, (keep ? t * field->samples : 0) + b);
                open_gates(field, gates, before, &row);
                for (idx c = 0; c < channels; c++) beta[c] = leak * row.channel[c];
                for (idx p = 0; p < places; p++) {
                    const REAL space = row.space[p];
#pragma GCC ivdep
                    for (idx i = p * channels, c = 0; c < channels; i++, c++) {
                        REAL v = t ? rest[i] * (1 - before[i]) : rest[i];
                        potential[i] = space * beta[c] * v + now[i];
                    }
                }
            } else {
                memcpy(potential, now, n * sizeof(REAL));
            }
#pragma GCC ivdep
            for (idx i = 0; i < n; i++) out[i] = fire(potential[i] - threshold, strict);
            if (v1 && t == field->steps - 1) {
                for (idx i = 0; i < n; i++) v1[b * n + i] = potential[i] * (1 - out[i]);
            }
        }
    }
}

/* Gradients, given those of the spikes (`g`) and in `gv` of the state after (`carried`). `gx`: of the currents; `gv`, `gs`: of the state
 * before; `weight` [samples, C]: of the spatial gate's weight. Before the sigmoids and the rectifier: `at_space`, `at_channel`, `at_inner`
 * of every step. `scratch` takes [samples, 2 C + 2 P C]. */
void attentive_backward(const Neuron *neuron, const Field *field, const Gates *gates, const REAL *u, const REAL *v0, const REAL *s0,
                        const Opened *opened, const REAL *g, int carried, REAL *gx, REAL *gv, REAL *gs, REAL *weight, REAL *at_space,
                        REAL *at_channel, REAL *at_inner, REAL *scratch) {
    const idx channels = field->channels, places = field->places, hidden = field->hidden, n = places * channels, size = n * field->samples;
    const REAL leak = (REAL)field->leak, threshold = (REAL)field->threshold;
    const int strict = neuron->strict;
#pragma omp parallel for schedule(static) num_threads(field->threads) if (field->threads > 1)
    for (idx b = 0; b < field->samples; b++) {
        REAL *restrict beta = scratch + b * (2 * channels + 2 * n), *restrict even = beta + channels, *v = even + channels, *s = v + n;
        REAL *restrict state = gv + b * n, *restrict spikes = gs + b * n, *restrict slope = weight + b * channels;
        for (idx t = field->steps - 1; t >= 0; t--) {
            const REAL *restrict potential = u + t * size + b * n, *restrict upstream = g + t * size + b * n;
            REAL *restrict out = gx + t * size + b * n;
            slopes(neuron, potential, NULL, threshold, out, n);
            if (t == field->steps - 1 && !carried) {
                for (idx i = 0; i < n; i++) out[i] *= upstream[i];
            } else {
                const int gated = t < field->steps - 1, attached = neuron->attached;
#pragma GCC ivdep
                for (idx i = 0; i < n; i++) {
                    REAL at_spike = gated ? upstream[i] + spikes[i] : upstream[i];
                    at_spike = attached ? at_spike - state[i] * potential[i] : at_spike;
                    out[i] = at_spike * out[i] + state[i] * (1 - fire(potential[i] - threshold, strict));
                }
            }
            if (t == 0 && !v0) break;
            const REAL *restrict before = t ? potential - size : v0 + b * n;
            if (t) {
#pragma GCC ivdep
                for (idx i = 0; i < n; i++) {
                    s[i] = fire(before[i] - threshold, strict);
                    v[i] = before[i] * (1 - s[i]);
                }
            } else {
                memcpy(v, v0 + b * n, n * sizeof(REAL));
                memcpy(s, s0 + b * n, n * sizeof(REAL));
            }
            const idx row_at = t * field->samples + b;
            const Opened row = row_of_gates(opened, field, row_at);
            REAL *restrict atc = at_channel + row_at * channels, *restrict atp = at_space + row_at * places, *ati = at_inner + row_at * hidden;
            for (idx c = 0; c < channels; c++) beta[c] = leak * row.channel[c];
            fill(atc, NULL, 0, channels);
            for (idx p = 0; p < places; p++) {
                const REAL space = row.space[p];
                const REAL *restrict gu = out + p * channels, *restrict vp = v + p * channels;
                REAL *restrict to = state + p * channels, sum = 0;
#pragma omp simd reduction(+ : sum)
                for (idx c = 0; c < channels; c++) {
                    REAL product = gu[c] * vp[c];
                    sum += product * beta[c];
                    atc[c] += product * space;
                    to[c] = gu[c] * (space * beta[c]);
                }
                atp[p] = field->spatial ? sum * (space * (1 - space)) : 0;
            }
            fill(even, NULL, 0, channels);
            for (idx c = 0; c < channels; c++) atc[c] *= beta[c] * (1 - row.channel[c]);
            for (idx j = 0; j < hidden; j++) {
                REAL sum = 0;
                for (idx c = 0; c < channels; c++) sum += gates->excite[c * hidden + j] * atc[c];
                ati[j] = row.inner[j] > 0 ? sum : 0;
                const REAL share = ati[j] / (REAL)places;
#pragma GCC ivdep
                for (idx c = 0; c < channels; c++) even[c] += gates->squeeze[j * channels + c] * share;
            }
            for (idx p = 0; p < places; p++) {
                REAL *restrict to = spikes + p * channels;
                if (!field->spatial) {
                    memcpy(to, even, channels * sizeof(REAL));
                    continue;
                }
                const REAL at = atp[p];
                const REAL *restrict sp = s + p * channels;
#pragma GCC ivdep
                for (idx c = 0; c < channels; c++) {
                    slope[c] += at * sp[c];
                    to[c] = at * gates->weight[c] + even[c];
                }
            }
        }
    }
}

/* Neurons with a dynamic decay (methods/nn/dynamic_decay.py): alpha[t] = sigmoid(z[t])^(1/tau), z a causal convolution of the inputs, channel
 * by channel, or given; h[t] = alpha[t] h[t-1] + (1 - alpha[t]) x[t]; s[t] = clip(round(h[t]), 0, levels). `x` has `past` rows before the
 * first step; rows before those are zeros. `arctan`: surrogate of binary spikes with coefficients c0 and c1, else straight through. */
#define DECAY_BLOCK 512
#define MAX_TAPS 8

typedef struct {
    idx past, taps;
    int32_t arctan;
    double tau, levels, c0, c1;
} Decay;

enum { ANY_POWER, PLAIN, SQUARED, FOURTH };

INLINE int power_of(double tau) { return tau == 1 ? PLAIN : tau == 0.5 ? SQUARED : tau == 0.25 ? FOURTH : ANY_POWER; }

INLINE REAL raised(REAL s, int power, double exponent) {
    if (power == ANY_POWER) return (REAL)pow(s, exponent);
    if (power >= SQUARED) s = s * s;
    return power == FOURTH ? s * s : s;
}

INLINE REAL rooted(REAL a, int power, double tau) {
    if (power == ANY_POWER) return (REAL)pow(a, tau);
    if (power >= SQUARED) a = (REAL)(sizeof(REAL) == 8 ? sqrt(a) : sqrtf(a));
    return power == FOURTH ? (REAL)(sizeof(REAL) == 8 ? sqrt(a) : sqrtf(a)) : a;
}

#define BY_POWER(call)                     \
    switch (power_of(decay->tau)) {        \
        case PLAIN: call(PLAIN); break;    \
        case SQUARED: call(SQUARED); break; \
        case FOURTH: call(FOURTH); break;  \
        default: call(ANY_POWER);          \
    }

INLINE void decay_row(const REAL *restrict now, const REAL *restrict z, REAL *restrict a, REAL *restrict h, REAL *restrict s,
                      REAL *restrict v, idx n, int power, double exponent, REAL levels) {
    const REAL magic = sizeof(REAL) == 8 ? (REAL)6755399441055744.0 : (REAL)12582912.0; /* rounds, ties to even */
#pragma GCC ivdep
    for (idx i = 0; i < n; i++) {
        REAL alpha = raised(sigmoid(z[i]), power, exponent);
        REAL potential = alpha * v[i] + (1 - alpha) * now[i];
        REAL y = potential > 0 ? potential : 0;
        y = y < levels ? y : levels;
        y = (y + magic) - magic;
        a[i] = alpha;
        h[i] = v[i] = potential;
        s[i] = potential != potential ? potential : y;
    }
}

/* The weights [taps, channels] of a block's neurons, tap by tap. */
static void spread(const REAL *weight, idx rows, const Grid *grid, idx at, idx n, REAL (*to)[DECAY_BLOCK]) {
    for (idx j = 0; j < rows; j++) {
        idx channel = at / grid->inner % grid->channels, left = grid->inner - at % grid->inner;
        for (idx i = 0; i < n; i++) {
            to[j][i] = weight[j * grid->channels + channel];
            if (--left == 0) {
                left = grid->inner;
                if (++channel == grid->channels) channel = 0;
            }
        }
    }
}

/* `gate` are the z that are given, or null: then they follow from `weight` [taps, channels] and `bias`. `alpha` may be null. */
void decay_forward(const Grid *grid, const Decay *decay, const REAL *x, idx x_stride, const REAL *gate, idx gate_stride, const REAL *weight,
                   const REAL *bias, const REAL *h0, REAL *alpha, REAL *h, REAL *s) {
    const idx steps = grid->steps, size = grid->size, taps = decay->taps, past = decay->past;
    const double exponent = 1 / decay->tau;
    const REAL levels = (REAL)decay->levels;
#pragma omp parallel for schedule(static) num_threads(grid->threads) if (grid->threads > 1)
    for (idx at = 0; at < size; at += grid->block) {
        REAL w[MAX_TAPS][DECAY_BLOCK], b[1][DECAY_BLOCK], v[DECAY_BLOCK], z[DECAY_BLOCK], spare[DECAY_BLOCK];
        const idx n = size - at < grid->block ? size - at : grid->block;
        fill(v, h0 ? h0 + at : NULL, 0, n);
        if (!gate) {
            spread(weight, taps, grid, at, n, w);
            spread(bias, 1, grid, at, n, b);
        }
        for (idx t = 0; t < steps; t++) {
            const REAL *now = x + at + (t + past) * x_stride, *arguments = gate ? gate + at + t * gate_stride : z;
            REAL *a = alpha ? alpha + at + t * size : spare;
            if (!gate) {
                memcpy(z, b[0], n * sizeof(REAL));
                for (idx j = 0; j < taps; j++) {
                    const idx row = t + past - (taps - 1) + j;
                    if (row < 0) continue;
                    const REAL *restrict from = x + at + row * x_stride, *restrict tap = w[j];
#pragma GCC ivdep
                    for (idx i = 0; i < n; i++) z[i] += tap[i] * from[i];
                }
            }
#define DECAYED(POWER) decay_row(now, arguments, a, h + at + t * size, s + at + t * size, v, n, POWER, exponent, levels)
            BY_POWER(DECAYED)
        }
    }
}

/* A row backwards: `g` is the gradient of h, with what came back from later steps in `v`; `da` gets that of z. */
INLINE void decay_back(const REAL *restrict now, const REAL *restrict a, const REAL *restrict before, const REAL *restrict g,
                       REAL *restrict out, REAL *restrict da, REAL *restrict v, idx n, int power, double tau) {
    const REAL exponent = (REAL)(1 / tau);
#pragma GCC ivdep
    for (idx i = 0; i < n; i++) {
        REAL alpha = a[i], all = g[i] + v[i];
        out[i] = (1 - alpha) * all;
        da[i] = all * (before[i] - now[i]) * alpha * (1 - rooted(alpha, power, tau)) * exponent;
        v[i] = alpha * all;
    }
}

/* Gradients of the rows of x (`gx`, those of the past included), of the given z (`ggate`, or null), of h0 (`gh0`, may be null), and per
 * block in `sums` [blocks, taps + 1, channels], zeros before, of weight and bias; from those of spikes (`g`) and of h (`gh`), either may be
 * null. */
void decay_backward(const Grid *grid, const Decay *decay, const REAL *x, idx x_stride, const REAL *weight, const REAL *alpha, const REAL *h,
                    const REAL *h0, const REAL *g, idx g_stride, const REAL *gh, idx gh_stride, REAL *gx, REAL *ggate, double *sums,
                    REAL *gh0) {
    const idx steps = grid->steps, size = grid->size, taps = decay->taps, past = decay->past;
    const REAL levels = (REAL)decay->levels, c0 = (REAL)decay->c0, c1 = (REAL)decay->c1;
#pragma omp parallel for schedule(static) num_threads(grid->threads) if (grid->threads > 1)
    for (idx at = 0; at < size; at += grid->block) {
        REAL w[MAX_TAPS][DECAY_BLOCK], ring[MAX_TAPS][DECAY_BLOCK], v[DECAY_BLOCK], first[DECAY_BLOCK], sum[DECAY_BLOCK];
        double total[MAX_TAPS + 1][DECAY_BLOCK];
        const idx n = size - at < grid->block ? size - at : grid->block;
        fill(v, NULL, 0, n);
        fill(first, h0 ? h0 + at : NULL, 0, n);
        if (!ggate) {
            spread(weight, taps, grid, at, n, w);
            for (idx j = 0; j <= taps; j++) {
                for (idx i = 0; i < n; i++) total[j][i] = 0;
            }
        }
        for (idx t = steps - 1; t >= -past; t--) {
            REAL *restrict out = gx + at + (t + past) * size;
            if (t >= 0) {
                const REAL *restrict u = h + at + t * size, *before = t ? h + at + (t - 1) * size : first;
                const REAL *restrict spikes = g ? g + at + t * g_stride : NULL, *restrict direct = gh ? gh + at + t * gh_stride : NULL;
                REAL *da = ggate ? ggate + at + t * size : ring[t % taps];
                if (!spikes) {
                    memcpy(sum, direct, n * sizeof(REAL));
                } else {
                    if (decay->arctan) {
                        for (idx i = 0; i < n; i++) sum[i] = spikes[i] * derivative(u[i] - (REAL)0.5, ARCTAN, c0, c1, 0);
                    } else {
                        for (idx i = 0; i < n; i++) sum[i] = u[i] >= 0 && u[i] <= levels ? spikes[i] : 0;
                    }
                    if (direct) {
                        for (idx i = 0; i < n; i++) sum[i] += direct[i];
                    }
                }
#define BACKWARDS(POWER) \
    decay_back(x + at + (t + past) * x_stride, alpha + at + t * size, before, sum, out, da, v, n, POWER, decay->tau)
                BY_POWER(BACKWARDS)
                if (ggate) continue;
                for (idx j = 0; j < taps; j++) {
                    const idx row = t + past - (taps - 1) + j;
                    if (row < 0) continue;
                    const REAL *restrict from = x + at + row * x_stride;
                    double *restrict to = total[j];
#pragma GCC ivdep
                    for (idx i = 0; i < n; i++) to[i] += da[i] * from[i];
                }
                for (idx i = 0; i < n; i++) total[taps][i] += da[i];
            } else {
                fill(out, NULL, 0, n);
                if (ggate) continue;
            }
            for (idx j = 0; j < taps; j++) { /* row t is the input of steps t to t + taps - 1 */
                const idx later = t + j;
                if (later < 0 || later >= steps) continue;
                const REAL *restrict da = ring[later % taps], *restrict tap = w[taps - 1 - j];
#pragma GCC ivdep
                for (idx i = 0; i < n; i++) out[i] += tap[i] * da[i];
            }
        }
        if (gh0) memcpy(gh0 + at, v, n * sizeof(REAL));
        if (ggate) continue;
        for (idx j = 0; j <= taps; j++) {
            double *to = sums + (at / grid->block * (taps + 1) + j) * grid->channels;
            idx channel = at / grid->inner % grid->channels, left = grid->inner - at % grid->inner;
            for (idx i = 0; i < n; i++) {
                to[channel] += total[j][i];
                if (--left == 0) {
                    left = grid->inner;
                    if (++channel == grid->channels) channel = 0;
                }
            }
        }
    }
}
