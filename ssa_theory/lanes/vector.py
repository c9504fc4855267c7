"""The vector units' functions, in C++: what every compiled step starts with.

REAL, INT: float and int32_t, or double and int64_t. LANES: numbers of a vector. DOUBLE: whether
REAL is double. In double precision the functions are the C library's. In single precision their
errors, in units in the last place of normal numbers, are at most: exp, log, 1 / x 2, tanh 2.5,
sigmoid and erf 3, sqrt 1; a number that is not normal counts as zero, where the processor can be
asked to do so.
"""

HEADER = r"""
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef REAL V __attribute__((vector_size(sizeof(REAL) * LANES)));
typedef INT I __attribute__((vector_size(sizeof(REAL) * LANES)));
#define INL static inline __attribute__((always_inline))

#if defined(__x86_64__)
INL unsigned denormals_are_zero() { unsigned was = _mm_getcsr(); _mm_setcsr(was | 0x8040); return was; }
INL void denormals_are(unsigned state) { _mm_setcsr(state); }
#else
INL unsigned denormals_are_zero() { return 0; }
INL void denormals_are(unsigned) {}
#endif

INL V bc(REAL x) { V r = {}; return r + x; }
INL I ibc(INT x) { I r = {}; return r + x; }
INL V vabs(V x) { return (V)((I)x & (I)((I)bc(0) + (INT)~((uint64_t)1 << (8 * sizeof(REAL) - 1)))); }
#define EACH(name, f) INL V name(V x) { V r; for (int l = 0; l < LANES; l++) r[l] = f(x[l]); return r; }
INL V vpow(V x, V y) { V r; for (int l = 0; l < LANES; l++) r[l] = std::pow(x[l], y[l]); return r; }

// NaN where either is.
#if defined(__AVX512F__) && !DOUBLE && LANES == 16
#define M512(x) ((__m512)(x))
#define ORDERED(x) _mm512_cmp_ps_mask(M512(x), M512(x), _CMP_ORD_Q)
INL V vmax(V a, V b) { return (V)_mm512_mask_max_ps(M512(a), ORDERED(a), M512(a), M512(b)); }
INL V vmin(V a, V b) { return (V)_mm512_mask_min_ps(M512(a), ORDERED(a), M512(a), M512(b)); }
#elif defined(__AVX2__) && !DOUBLE && LANES == 8
#define M256(x) ((__m256)(x))
#define OR_NAN(x, y) (V)_mm256_blendv_ps(y, M256(x), _mm256_cmp_ps(M256(x), M256(x), _CMP_UNORD_Q))
INL V vmax(V a, V b) { return OR_NAN(a, _mm256_max_ps(M256(a), M256(b))); }
INL V vmin(V a, V b) { return OR_NAN(a, _mm256_min_ps(M256(a), M256(b))); }
#else
INL V vmax(V a, V b) { return (b > a) | (b != b) ? b : a; }
INL V vmin(V a, V b) { return (b < a) | (b != b) ? b : a; }
#endif

#if DOUBLE
INL V vdiv(V x, V y) { return x / y; }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
EACH(vexp, exp)
EACH(vlog, log)
EACH(vtanh, tanh)
EACH(vsigmoid, sigmoid)
EACH(vsqrt, sqrt)
EACH(verf, erf)
INL V verf(V x, V) { return verf(x); }
INL V vexp_falling(V x) { return vexp(x); }
INL V vroot(V x) { return vsqrt(x); }
#else

#if defined(__AVX512F__) && LANES == 16
// One Newton step from 14 bits. What the step makes NaN keeps the start: 1/0 and 1/inf.
INL V vrecip(V y) {
  __m512 r = _mm512_rcp14_ps(M512(y));
  __m512 n = _mm512_mul_ps(r, _mm512_fnmadd_ps(M512(y), r, _mm512_set1_ps(2.0f)));
  return (V)_mm512_mask_mov_ps(n, _mm512_cmp_ps_mask(n, n, _CMP_UNORD_Q), r);
}
INL V vsqrt(V x) { return (V)_mm512_sqrt_ps(M512(x)); }
// sqrt x for x from 1e-30, and what is as good as 0 below: one step from 14 bits.
INL V vroot(V x) {
  __m512 y = _mm512_max_ps(M512(x), _mm512_set1_ps(1.2e-38f));
  __m512 r = _mm512_rsqrt14_ps(y), s = _mm512_mul_ps(y, r);
  return (V)_mm512_fmadd_ps(_mm512_fnmadd_ps(s, s, y), _mm512_mul_ps(r, _mm512_set1_ps(0.5f)), s);
}
#else
INL V vrecip(V y) { return 1.0f / y; }
#if defined(__AVX2__) && LANES == 8
INL V vsqrt(V x) { return (V)_mm256_sqrt_ps(M256(x)); }
#elif defined(__x86_64__) && LANES == 4
INL V vsqrt(V x) { return (V)_mm_sqrt_ps((__m128)x); }
#else
EACH(vsqrt, sqrtf)
#endif
INL V vroot(V x) { return vsqrt(x); }
#endif

INL V vdiv(V x, V y) { return x * vrecip(y); }

// e^x = 2^n e^r, |r| <= log(2)/2, e^r = 1 + r + r^2 q(r); q by weighted least squares (minimax).
// Within [-88, 88.72], or NaN; what is not normal may be any number that is not.
INL V vexp_within(V x) {
#if defined(__AVX512F__) && LANES == 16
  V n = (V)_mm512_roundscale_ps(M512(x * 1.44269504f), 0);
#else
  V big = bc(12582912.0f), shifted = x * 1.44269504f + big, n = shifted - big;
#endif
  V r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  V q = bc(1.3813142e-3f);
  q = q * r + 8.3694188e-3f;
  q = q * r + 4.1668456e-2f;
  q = q * r + 1.6666515e-1f;
  q = q * r + 4.9999994e-1f;
  V p = (q * (r * r) + r) + 1.0f;
#if defined(__AVX512F__) && LANES == 16
  return (V)_mm512_scalef_ps(M512(p), M512(n));  // p 2^n
#else
  return (V)((I)p + ((I)shifted << 23));  // n stands in the last bits
#endif
}
INL V vexp(V x) {
#if defined(__AVX512F__) && LANES == 16
  x = x > 89.0f ? bc(89.0f) : x;
  x = x < -104.0f ? bc(-104.0f) : x;
  return vexp_within(x);
#else
  V y = vexp_within(x);
  y = x > -87.336540f ? y : bc(0.0f);  // what is not normal counts as zero
  return x < 88.722837f ? y : x + INFINITY;  // NaN stays
#endif
}
// e^x of x <= 0.
INL V vexp_falling(V x) {
#if defined(__AVX2__) && LANES == 8
  return vexp_within((V)_mm256_max_ps(M256(bc(-88.0f)), M256(x)));  // NaN stays
#elif defined(__x86_64__)
  return vexp_within(x < -88.0f ? bc(-88.0f) : x);
#else
  return vexp(x);
#endif
}

// log x = e log 2 + log(1 + f), 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = f - f^2/2 + f^3 q(f).
INL V vlog(V x) {
  I bits = (I)x, e = (bits - 0x3f3504f3) >> 23;
  V f = (V)(bits - (e << 23)) - 1.0f, n = __builtin_convertvector(e, V), f2 = f * f;
  V q = bc(6.7463636e-2f);
  q = q * f - 1.1715954e-1f;
  q = q * f + 1.1909968e-1f;
  q = q * f - 1.2400977e-1f;
  q = q * f + 1.4216211e-1f;
  q = q * f - 1.6668110e-1f;
  q = q * f + 2.0002273e-1f;
  q = q * f - 2.5000009e-1f;
  q = q * f + 3.3333310e-1f;
  V y = f * f2 * q - n * 2.12194440e-4f;
  y = (y - 0.5f * f2) + f;
  y = y + n * 0.693359375f;
  y = x < 1.1754944e-38f ? bc(-INFINITY) : y;  // a number that is not normal counts as zero
  y = x == bc(INFINITY) ? x : y;
  return (x < 0.0f) | (x != x) ? bc(NAN) : y;
}

// tanh x = x + x^3 q(x^2) near 0, else 1 - 2 / (e^2x + 1).
INL V vtanh(V x) {
  V a = vabs(x), s = x * x;
  V q = bc(-5.4394435e-3f);
  q = q * s + 2.0397969e-2f;
  q = q * s - 5.3665049e-2f;
  q = q * s + 1.3330543e-1f;
  q = q * s - 3.3333248e-1f;
  V near = x + x * s * q;
  V far = 1.0f - 2.0f * vrecip(vexp(2.0f * a) + 1.0f);
  far = x < 0.0f ? -far : far;
  return a < 0.625f ? near : far;
}

INL V vsigmoid(V x) { return vrecip(1.0f + vexp(-x)); }

// erf x = x q(x^2) up to 1, else 1 - e^(-x^2) h(x); e: e^(-x^2).
INL V verf(V x, V e) {
  V a = vabs(x), s = x * x;
  V q = bc(7.7876946e-5f);
  q = q * s - 7.9916167e-4f;
  q = q * s + 5.1863836e-3f;
  q = q * s - 2.6852880e-2f;
  q = q * s + 1.1283565e-1f;
  q = q * s - 3.7612623e-1f;
  q = q * s + 1.1283791f;
  V near = x * q, t = a > 3.95f ? bc(3.95f) : a;
  V h = bc(-3.8888419e-4f);
  h = h * t + 6.0051261e-3f;
  h = h * t - 4.0998165e-2f;
  h = h * t + 1.6413361e-1f;
  h = h * t - 4.3167952e-1f;
  h = h * t + 7.9259467e-1f;
  h = h * t - 1.0482105f;
  h = h * t + 9.8612726e-1f;
  V far = 1.0f - e * h;
  far = x < 0.0f ? -far : far;
  return a <= 1.0f ? near : far;
}
INL V verf(V x) { return verf(x, vexp_falling(-x * x)); }
#endif

// The entry at[lane] of a lane's column, and a sum into it.
INL V pick(const V* column, I at, int stride) {
  V r;
  for (int l = 0; l < LANES; l++) r[l] = column[at[l] * stride][l];
  return r;
}
INL void put(V* column, I at, int stride, V value) {
  for (int l = 0; l < LANES; l++) column[at[l] * stride][l] += value[l];
}

// Adam, with the bias corrections in rate and root.
INL void adam(V& p, V& m, V& v, V g, V rate, V root) {
  m = m + (REAL)0.1 * (g - m);
  v = (REAL)0.999 * v + (REAL)0.001 * (g * g);
  p = p - rate * vdiv(m, vroot(v) * root + (REAL)1e-8);
}

// n numbers of each of a chunk's models, from (n, members) in memory; past the last model, its own
// again.
template <class Lane, class T>
INL void fetch(Lane* to, const T* from, int64_t n, int64_t members, int count) {
  typedef T Given __attribute__((vector_size(sizeof(T) * LANES)));
  if (count == LANES) {
    for (int64_t i = 0; i < n; i++) {
      Given given;
      __builtin_prefetch(from + (i + 16) * members);
      memcpy(&given, from + i * members, sizeof(given));
      to[i] = __builtin_convertvector(given, Lane);
    }
    return;
  }
  for (int64_t i = 0; i < n; i++)
    for (int l = 0; l < LANES; l++) to[i][l] = from[i * members + (l < count ? l : count - 1)];
}
template <class T> INL void keep(T* to, const V* from, int64_t n, int64_t members, int count) {
  for (int64_t i = 0; i < n; i++)
    for (int l = 0; l < count; l++) to[i * members + l] = from[i][l];
}
"""
