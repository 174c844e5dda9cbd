/**
 * The network's layers for WebAssembly, in AssemblyScript (see scripts/kernels.mjs). Activations are
 * (height, width, channels) float32, channels a multiple of 4. Every layer ends in a clamp: ReLU and
 * ReLU6 are clamps, and without an activation its limits are infinite.
 */

/** Pixels whose inputs stay in the cache while all output channels are computed. */
const PANEL: i32 = 48;

// @ts-ignore: decorator
@inline
function madd(a: v128, b: v128, sum: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, sum);
  return f32x4.add(f32x4.mul(a, b), sum);
}

// @ts-ignore: decorator
@inline
function put(at: usize, sum: v128, residual: usize, low: v128, high: v128): void {
  if (residual) sum = f32x4.add(sum, v128.load(residual + at));
  v128.store(at, f32x4.pmin(high, f32x4.pmax(low, sum)));
}

/** Four pixels, eight channels. `residual` is an offset from the output, or 0. */
// @ts-ignore: decorator
@inline
function tile4x8(
  x: usize, row: usize, w: usize, k: i32, y: usize, stride: usize, residual: usize, low: v128, high: v128,
): void {
  const b0 = v128.load(w);
  const b1 = v128.load(w, 16);
  let a0 = b0, a1 = b1, c0 = b0, c1 = b1, d0 = b0, d1 = b1, e0 = b0, e1 = b1;
  let x0 = x;
  let x1 = x + row;
  let x2 = x1 + row;
  let x3 = x2 + row;
  w += 32;
  const end = x + (<usize>k << 2);
  while (x0 < end) {
    const w0 = v128.load(w);
    const w1 = v128.load(w, 16);
    const v0 = v128.load32_splat(x0);
    a0 = madd(v0, w0, a0);
    a1 = madd(v0, w1, a1);
    const v1 = v128.load32_splat(x1);
    c0 = madd(v1, w0, c0);
    c1 = madd(v1, w1, c1);
    const v2 = v128.load32_splat(x2);
    d0 = madd(v2, w0, d0);
    d1 = madd(v2, w1, d1);
    const v3 = v128.load32_splat(x3);
    e0 = madd(v3, w0, e0);
    e1 = madd(v3, w1, e1);
    const w2 = v128.load(w, 32);
    const w3 = v128.load(w, 48);
    const u0 = v128.load32_splat(x0, 4);
    a0 = madd(u0, w2, a0);
    a1 = madd(u0, w3, a1);
    const u1 = v128.load32_splat(x1, 4);
    c0 = madd(u1, w2, c0);
    c1 = madd(u1, w3, c1);
    const u2 = v128.load32_splat(x2, 4);
    d0 = madd(u2, w2, d0);
    d1 = madd(u2, w3, d1);
    const u3 = v128.load32_splat(x3, 4);
    e0 = madd(u3, w2, e0);
    e1 = madd(u3, w3, e1);
    w += 64;
    x0 += 8;
    x1 += 8;
    x2 += 8;
    x3 += 8;
  }
  put(y, a0, residual, low, high);
  put(y + 16, a1, residual, low, high);
  y += stride;
  put(y, c0, residual, low, high);
  put(y + 16, c1, residual, low, high);
  y += stride;
  put(y, d0, residual, low, high);
  put(y + 16, d1, residual, low, high);
  y += stride;
  put(y, e0, residual, low, high);
  put(y + 16, e1, residual, low, high);
}

/** One pixel, `wide` (4 or 8) channels. */
// @ts-ignore: decorator
@inline
function tile1(
  x: usize, w: usize, k: i32, wide: i32, y: usize, residual: usize, low: v128, high: v128,
): void {
  const step = <usize>wide << 2;
  let a0 = v128.load(w);
  let a1 = wide == 8 ? v128.load(w, 16) : a0;
  const end = x + (<usize>k << 2);
  w += step;
  for (; x < end; x += 4, w += step) {
    const value = v128.load32_splat(x);
    a0 = madd(value, v128.load(w), a0);
    if (wide == 8) a1 = madd(value, v128.load(w, 16), a1);
  }
  put(y, a0, residual, low, high);
  if (wide == 8) put(y + 16, a1, residual, low, high);
}

/**
 * A convolution of 1x1: (pixels, k) to (pixels, n). Weights are blocks of eight (the last of four)
 * output channels, each its biases and then a row an input channel. What lies at `residual`, if it is
 * not 0, is added before the clamp.
 */
export function pointwise(
  x: usize, w: usize, residual: usize, y: usize, pixels: i32, k: i32, n: i32, least: f32, most: f32,
): void {
  const low = f32x4.splat(least);
  const high = f32x4.splat(most);
  const row = <usize>k << 2;
  const stride = <usize>n << 2;
  const offset = residual ? residual - y : 0;
  for (let from = 0; from < pixels; from += PANEL) {
    const to = min(from + PANEL, pixels);
    let block = w;
    let o = 0;
    for (; o + 8 <= n; o += 8) {
      let p = from;
      let at = y + <usize>from * stride + (<usize>o << 2);
      let source = x + <usize>from * row;
      for (; p + 4 <= to; p += 4) {
        tile4x8(source, row, block, k, at, stride, offset, low, high);
        at += 4 * stride;
        source += 4 * row;
      }
      for (; p < to; p++) {
        tile1(source, block, k, 8, at, offset, low, high);
        at += stride;
        source += row;
      }
      block += (<usize>k + 1) << 5;
    }
    if (o < n) {
      for (let p = from; p < to; p++) {
        tile1(
          x + <usize>p * row, block, k, 4, y + <usize>p * stride + (<usize>o << 2), offset, low, high,
        );
      }
    }
  }
}

/**
 * A convolution of one filter a channel, of an image that is first doubled `up` times by repeating its
 * pixels; `height` and `width` are those of the doubled image. Weights are the biases, then a row a tap.
 */
export function depthwise(
  x: usize, w: usize, y: usize, height: i32, width: i32, up: i32, channels: i32, size: i32,
  stride: i32, pad: i32, outHeight: i32, outWidth: i32, least: f32, most: f32,
): void {
  const low = f32x4.splat(least);
  const high = f32x4.splat(most);
  const pixel = <usize>channels << 2;
  const line = <usize>(width >> up) * pixel;
  for (let oy = 0; oy < outHeight; oy++) {
    const top = oy * stride - pad;
    const ky0 = max(0, -top);
    const ky1 = min(size, height - top);
    for (let ox = 0; ox < outWidth; ox++) {
      const left = ox * stride - pad;
      const kx0 = max(0, -left);
      const kx1 = min(size, width - left);
      let c: usize = 0;
      for (; c + 64 <= pixel; c += 64) {
        let a0 = v128.load(w + c);
        let a1 = v128.load(w + c, 16);
        let a2 = v128.load(w + c, 32);
        let a3 = v128.load(w + c, 48);
        for (let ky = ky0; ky < ky1; ky++) {
          const from = x + <usize>((top + ky) >> up) * line + c;
          let tap = w + <usize>(1 + ky * size + kx0) * pixel + c;
          for (let kx = kx0; kx < kx1; kx++) {
            const source = from + <usize>((left + kx) >> up) * pixel;
            a0 = madd(v128.load(source), v128.load(tap), a0);
            a1 = madd(v128.load(source, 16), v128.load(tap, 16), a1);
            a2 = madd(v128.load(source, 32), v128.load(tap, 32), a2);
            a3 = madd(v128.load(source, 48), v128.load(tap, 48), a3);
            tap += pixel;
          }
        }
        put(y + c, a0, 0, low, high);
        put(y + c + 16, a1, 0, low, high);
        put(y + c + 32, a2, 0, low, high);
        put(y + c + 48, a3, 0, low, high);
      }
      for (; c < pixel; c += 16) {
        let sum = v128.load(w + c);
        for (let ky = ky0; ky < ky1; ky++) {
          const from = x + <usize>((top + ky) >> up) * line + c;
          for (let kx = kx0; kx < kx1; kx++) {
            const source = from + <usize>((left + kx) >> up) * pixel;
            sum = madd(v128.load(source), v128.load(w + <usize>(1 + ky * size + kx) * pixel + c), sum);
          }
        }
        put(y + c, sum, 0, low, high);
      }
      y += pixel;
    }
  }
}

/** What a convolution of `size` x `size` sees for one row of its output: (outWidth, size, size, channels). */
export function patches(
  x: usize, y: usize, height: i32, width: i32, channels: i32, size: i32, stride: i32, pad: i32,
  row: i32, outWidth: i32,
): void {
  const pixel = <usize>channels << 2;
  for (let ox = 0; ox < outWidth; ox++) {
    for (let ky = 0; ky < size; ky++) {
      const iy = row * stride - pad + ky;
      for (let kx = 0; kx < size; kx++) {
        const ix = ox * stride - pad + kx;
        if (iy >= 0 && iy < height && ix >= 0 && ix < width) {
          memory.copy(y, x + <usize>(iy * width + ix) * pixel, pixel);
        } else {
          memory.fill(y, 0, pixel);
        }
        y += pixel;
      }
    }
  }
}

/** The sum of two, or one alone where `residual` is 0, clamped: (count,), a multiple of 4. */
export function add(x: usize, residual: usize, y: usize, count: i32, least: f32, most: f32): void {
  const low = f32x4.splat(least);
  const high = f32x4.splat(most);
  const offset = residual ? residual - y : 0;
  for (let i: usize = 0; i < <usize>count << 2; i += 16) put(y + i, v128.load(x + i), offset, low, high);
}
