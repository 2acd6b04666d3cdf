// Kernels that make training the vision tower bearable on a processor with AVX2 or AVX-512.
// All tensors are float32 in NHWC order and every channel count is a multiple of 16.
// kernels.py compiles this file; without a compiler or x86-64-v3 the tower runs on PyTorch's own operators.
//
//   depthwise convolution   forward and both gradients, any channel multiplier
//   column statistics       sum and sum of squares per channel
//   affine                  act(A*y + E*x + D) per channel, with gradients
//
// BatchNorm, layer scale, biases, residual sums and the branches of a MobileOne
// block are all affine in one or two tensors, so `affine` covers everything
// between two convolutions in one pass over memory.

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
typedef __m512 v;
enum { L = 16 };
#define LD(p) _mm512_loadu_ps(p)
#define ST(p, x) _mm512_storeu_ps(p, x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SET(c) _mm512_set1_ps(c)
#define ABS(a) _mm512_abs_ps(a)
#define ROUND(a) _mm512_roundscale_ps(a, 0)
#define POW2(p, n) _mm512_scalef_ps(p, n)
#define MIRROR(z, q) _mm512_mask_sub_ps(q, _mm512_cmp_ps_mask(z, SET(0), _CMP_GE_OQ), SET(1.0f), q)
#else
typedef __m256 v;
enum { L = 8 };
#define LD(p) _mm256_loadu_ps(p)
#define ST(p, x) _mm256_storeu_ps(p, x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SET(c) _mm256_set1_ps(c)
#define ABS(a) _mm256_andnot_ps(SET(-0.0f), a)
#define ROUND(a) _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
// n is an integer in -126..0: it goes straight into the exponent.
#define POW2(p, n) \
    ((p) * _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)))
#define MIRROR(z, q) _mm256_blendv_ps(q, SET(1.0f) - (q), _mm256_cmp_ps(z, SET(0), _CMP_GE_OQ))
#endif

// Zero-padded copy of one picture with every channel repeated m times.
static void pad_in(const float *x, float *p, int H, int W, int Cin, int m, int pad) {
    int C = Cin * m, Wp = W + 2 * pad;
    memset(p, 0, sizeof(float) * (size_t)(H + 2 * pad) * Wp * C);
    for (int i = 0; i < H; i++)
        for (int j = 0; j < W; j++) {
            const float *s = x + ((size_t)i * W + j) * Cin;
            float *d = p + ((size_t)(i + pad) * Wp + j + pad) * C;
            if (m == 1) memcpy(d, s, sizeof(float) * C);
            else for (int c = 0; c < Cin; c++) for (int r = 0; r < m; r++) d[c * m + r] = s[c];
        }
}

enum { TILE = 8 };

static inline __attribute__((always_inline)) void dw_rows(const float *p, const float *w, float *y, int Wp, int C, int k, int s, int Ho, int Wo) {
    for (int i = 0; i < Ho; i++)
        for (int c = 0; c < C; c += L)
            for (int j = 0; j < Wo; j += TILE) {
                int n = Wo - j < TILE ? Wo - j : TILE;
                const float *base = p + ((size_t)i * s * Wp + (size_t)j * s) * C + c;
                float *o = y + ((size_t)i * Wo + j) * C + c;
                if (n == TILE) {
                    v a[TILE];
                    for (int t = 0; t < TILE; t++) a[t] = SET(0);
                    for (int u = 0; u < k; u++)
                        for (int q = 0; q < k; q++) {
                            v wv = LD(w + (u * k + q) * C + c);
                            const float *b = base + ((size_t)u * Wp + q) * C;
                            for (int t = 0; t < TILE; t++) a[t] = FMA(wv, LD(b + (size_t)t * s * C), a[t]);
                        }
                    for (int t = 0; t < TILE; t++) ST(o + (size_t)t * C, a[t]);
                } else
                    for (int t = 0; t < n; t++) {
                        v a = SET(0), b2 = a;
                        for (int u = 0; u < k; u++)
                            for (int q = 0; q < k; q++) {
                                v in = LD(base + ((size_t)u * Wp + q + (size_t)t * s) * C), wv = LD(w + (u * k + q) * C + c);
                                if (q & 1) b2 = FMA(wv, in, b2); else a = FMA(wv, in, a);
                            }
                        ST(o + (size_t)t * C, a + b2);
                    }
            }
}

static void dw_pick(const float *p, const float *w, float *y, int Wp, int C, int k, int s, int Ho, int Wo) {
    if (k == 3) dw_rows(p, w, y, Wp, C, 3, s, Ho, Wo);
    else if (k == 7) dw_rows(p, w, y, Wp, C, 7, s, Ho, Wo);
    else dw_rows(p, w, y, Wp, C, k, s, Ho, Wo);
}

// w is [k][k][C] with C = Cin*m; padding is k/2.
void dw_fwd(const float *x, const float *w, float *y, int B, int H, int W, int Cin, int m, int k, int s) {
    int pad = k / 2, C = Cin * m, Ho = (H + 2 * pad - k) / s + 1, Wo = (W + 2 * pad - k) / s + 1;
    size_t np = (size_t)(H + 2 * pad) * (W + 2 * pad) * C;
#pragma omp parallel
    {
        float *p = aligned_alloc(64, sizeof(float) * np);
#pragma omp for
        for (int b = 0; b < B; b++) {
            pad_in(x + (size_t)b * H * W * Cin, p, H, W, Cin, m, pad);
            dw_pick(p, w, y + (size_t)b * Ho * Wo * C, W + 2 * pad, C, k, s, Ho, Wo);
        }
        free(p);
    }
}

static inline __attribute__((always_inline)) void dw_gw(const float *p, const float *dy, float *gw, int Wp, int C, int k, int s, int Ho, int Wo) {
    for (int c = 0; c < C; c += L)
        for (int u = 0; u < k; u++) {
            v a[7];
            for (int q = 0; q < k; q++) a[q] = LD(gw + (u * k + q) * C + c);
            for (int i = 0; i < Ho; i++) {
                const float *row = p + ((size_t)(i * s + u) * Wp) * C + c, *d = dy + (size_t)i * Wo * C + c;
                for (int j = 0; j < Wo; j++) {
                    v g = LD(d + (size_t)j * C);
                    for (int q = 0; q < k; q++) a[q] = FMA(g, LD(row + (size_t)(j * s + q) * C), a[q]);
                }
            }
            for (int q = 0; q < k; q++) ST(gw + (u * k + q) * C + c, a[q]);
        }
}

static inline __attribute__((always_inline)) void dw_scatter(float *dp, const float *w, const float *dy, int Wp, int C, int k, int s, int Ho, int Wo) {
    for (int i = 0; i < Ho; i++)
        for (int c = 0; c < C; c += L)
            for (int u = 0; u < k; u++) {
                v wv[7];
                for (int q = 0; q < k; q++) wv[q] = LD(w + (u * k + q) * C + c);
                float *row = dp + ((size_t)(i * s + u) * Wp) * C + c;
                for (int j = 0; j < Wo; j++) {
                    v g = LD(dy + ((size_t)i * Wo + j) * C + c);
                    for (int q = 0; q < k; q++) {
                        float *o = row + (size_t)(j * s + q) * C;
                        ST(o, FMA(g, wv[q], LD(o)));
                    }
                }
            }
}

// gw [k][k][C] is set; dx may be NULL.
void dw_bwd(const float *x, const float *w, const float *dy, float *dx, float *gw, int B, int H, int W, int Cin, int m, int k, int s) {
    int pad = k / 2, C = Cin * m, Ho = (H + 2 * pad - k) / s + 1, Wo = (W + 2 * pad - k) / s + 1;
    int Hp = H + 2 * pad, Wp = W + 2 * pad;
    size_t np = (size_t)Hp * Wp * C, nw = (size_t)k * k * C;
    memset(gw, 0, sizeof(float) * nw);
    float *flip = aligned_alloc(64, sizeof(float) * nw);
    for (int q = 0; q < k * k; q++) memcpy(flip + (size_t)(k * k - 1 - q) * C, w + (size_t)q * C, sizeof(float) * C);
#pragma omp parallel
    {
        float *p = aligned_alloc(64, sizeof(float) * np), *g = aligned_alloc(64, sizeof(float) * nw);
        memset(g, 0, sizeof(float) * nw);
#pragma omp for
        for (int b = 0; b < B; b++) {
            const float *d = dy + (size_t)b * Ho * Wo * C;
            pad_in(x + (size_t)b * H * W * Cin, p, H, W, Cin, m, pad);
            if (k == 3) dw_gw(p, d, g, Wp, C, 3, s, Ho, Wo); else dw_gw(p, d, g, Wp, C, 7, s, Ho, Wo);
            if (!dx) continue;
            float *o = dx + (size_t)b * H * W * Cin;
            if (s == 1 && m == 1) {
                pad_in(d, p, H, W, C, 1, pad);
                dw_pick(p, flip, o, Wp, C, k, 1, H, W);
                continue;
            }
            memset(p, 0, sizeof(float) * np);
            if (k == 3) dw_scatter(p, w, d, Wp, C, 3, s, Ho, Wo); else dw_scatter(p, w, d, Wp, C, 7, s, Ho, Wo);
            for (int i = 0; i < H; i++)
                for (int j = 0; j < W; j++) {
                    const float *r = p + ((size_t)(i + pad) * Wp + j + pad) * C;
                    float *t = o + ((size_t)i * W + j) * Cin;
                    if (m == 1) memcpy(t, r, sizeof(float) * C);
                    else for (int c = 0; c < Cin; c++) { float z = 0; for (int e = 0; e < m; e++) z += r[c * m + e]; t[c] = z; }
                }
        }
#pragma omp critical
        for (size_t q = 0; q < nw; q++) gw[q] += g[q];
        free(p);
        free(g);
    }
    free(flip);
}

static inline v vexp(v x) {  // x <= 0; below 2^-126 the result stays there
#ifdef __AVX512F__
    x = _mm512_max_ps(x, SET(-87.0f));
#else
    x = _mm256_max_ps(x, SET(-87.0f));
#endif
    v n = ROUND(x * SET(1.44269504f));
    v r = FMA(n, SET(-0.693359375f), x);
    r = FMA(n, SET(2.12194440e-4f), r);
    v p = SET(1.3981999507e-3f);
    p = FMA(p, r, SET(8.3334519073e-3f));
    p = FMA(p, r, SET(4.1665795894e-2f));
    p = FMA(p, r, SET(1.6666665459e-1f));
    p = FMA(p, r, SET(5.0000001201e-1f));
    p = FMA(p, r * r, r + SET(1.0f));
    return POW2(p, n);
}

// Normal distribution function at z (Abramowitz and Stegun 7.1.26), and exp(-z*z/2).
static inline v phi(v z, v *e) {
    v a = ABS(z) * SET(0.70710678f);
    v t = SET(1.0f) / FMA(a, SET(0.3275911f), SET(1.0f));
    *e = vexp(z * z * SET(-0.5f));
    v p = SET(1.061405429f);
    p = FMA(p, t, SET(-1.453152027f));
    p = FMA(p, t, SET(1.421413741f));
    p = FMA(p, t, SET(-0.284496736f));
    p = FMA(p, t, SET(0.254829592f));
    v q = p * t * *e * SET(0.5f);
    return MIRROR(z, q);
}

static int chunk_rows(int C) { int r = 4096 / C; return r < 16 ? 16 : r; }

void colstats(const float *x, long N, int C, double *sum, double *sq) {
    int R = chunk_rows(C) * 4;
    memset(sum, 0, sizeof(double) * C);
    memset(sq, 0, sizeof(double) * C);
#pragma omp parallel
    {
        double *s = calloc(2 * C, sizeof(double));
#pragma omp for
        for (long r0 = 0; r0 < N; r0 += R) {
            long r1 = r0 + R < N ? r0 + R : N;
            for (int c = 0; c < C; c += L) {
                v a = SET(0), b = a, a2 = a, b2 = a;
                long r = r0;
                for (; r + 1 < r1; r += 2) {
                    v z = LD(x + r * C + c), z2 = LD(x + (r + 1) * C + c);
                    a = a + z; b = FMA(z, z, b);
                    a2 = a2 + z2; b2 = FMA(z2, z2, b2);
                }
                for (; r < r1; r++) { v z = LD(x + r * C + c); a = a + z; b = FMA(z, z, b); }
                float t[L], t2[L];
                ST(t, a + a2); ST(t2, b + b2);
                for (int q = 0; q < L; q++) { s[c + q] += t[q]; s[C + c + q] += t2[q]; }
            }
        }
#pragma omp critical
        for (int c = 0; c < C; c++) { sum[c] += s[c]; sq[c] += s[C + c]; }
        free(s);
    }
}

// out = p + q*x per channel (gradient of the statistics)
void linear_fwd(const float *x, const float *p, const float *q, float *out, long N, int C) {
#pragma omp parallel for
    for (long r = 0; r < N; r++)
        for (int c = 0; c < C; c += L) ST(out + r * C + c, FMA(LD(q + c), LD(x + r * C + c), LD(p + c)));
}

// x may be NULL.
void affine_fwd(const float *y, const float *x, const float *A, const float *E, const float *D, float *out, long N, int C, int act) {
    int R = chunk_rows(C);
#pragma omp parallel for
    for (long r0 = 0; r0 < N; r0 += R) {
        long r1 = r0 + R < N ? r0 + R : N;
        for (int c = 0; c < C; c += L) {
            v a = LD(A + c), d = LD(D + c), e = x ? LD(E + c) : d;
            for (long r = r0; r < r1; r++) {
                v z = FMA(a, LD(y + r * C + c), d), g;
                if (x) z = FMA(e, LD(x + r * C + c), z);
                if (act) z *= phi(z, &g);
                ST(out + r * C + c, z);
            }
        }
    }
}

void affine_bwd(const float *dout, const float *y, const float *x, const float *A, const float *E, const float *D,
                float *dy, float *dx, double *dA, double *dE, double *dD, long N, int C, int act) {
    int R = chunk_rows(C);
    memset(dA, 0, sizeof(double) * C);
    memset(dE, 0, sizeof(double) * C);
    memset(dD, 0, sizeof(double) * C);
#pragma omp parallel
    {
        double *s = calloc(3 * C, sizeof(double));
#pragma omp for
        for (long r0 = 0; r0 < N; r0 += R) {
            long r1 = r0 + R < N ? r0 + R : N;
            for (int c = 0; c < C; c += L) {
                v a = LD(A + c), d = LD(D + c), e = x ? LD(E + c) : d;
                v sa = SET(0), se = sa, sd = sa;
                for (long r = r0; r < r1; r++) {
                    v yv = LD(y + r * C + c), xv = x ? LD(x + r * C + c) : yv, g = LD(dout + r * C + c);
                    if (act) {
                        v z = FMA(a, yv, d), h;
                        if (x) z = FMA(e, xv, z);
                        v f = phi(z, &h);
                        g = g * FMA(z * SET(0.39894228f), h, f);
                    }
                    sa = FMA(g, yv, sa);
                    sd = sd + g;
                    ST(dy + r * C + c, a * g);
                    if (x) { se = FMA(g, xv, se); ST(dx + r * C + c, e * g); }
                }
                float t[3][L];
                ST(t[0], sa); ST(t[1], se); ST(t[2], sd);
                for (int q = 0; q < L; q++) { s[c + q] += t[0][q]; s[C + c + q] += t[1][q]; s[2 * C + c + q] += t[2][q]; }
            }
        }
#pragma omp critical
        for (int c = 0; c < C; c++) { dA[c] += s[c]; dE[c] += s[C + c]; dD[c] += s[2 * C + c]; }
        free(s);
    }
}
