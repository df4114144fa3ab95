"""Triton kernels of a decode step: a GPU then reads a step's weights one after the other with hardly a pause.

Letters: B rows of a step, H hidden, N width of a product, K its depth, P partial sums of it, A attention heads,
G key/value heads, D head size, F frames, V ids of the speaker, C candidates.

A step of a few rows is the reading of its weights: the arithmetic is nothing, and what counts is that the memory is
never idle. So there are as few kernels as there are points where all must wait for all (11 a layer), and every kernel
is launched while the one before it still runs (programmatic dependent launch, Hopper and later): it asks for its
weights, which don't depend on anything, and only then waits for its input. Products of few columns are split along
their depth, so that all processors read; the kernel that follows adds the partial sums up.

Everything is computed for rows 0 .. B - 1; sums are float32, what is stored between kernels has the weights' dtype.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

STOP, LENGTH, BROKEN = tl.constexpr(0), tl.constexpr(1), tl.constexpr(3)  # as in decoding/state.py
NOT_A_NUMBER_KEY = tl.constexpr(0x7FC00000)


@triton.jit
def _prefetch(first, bytes_each):
    """Ask the level-2 cache for stretches of memory; `first` are their addresses, multiples of 16 bytes."""
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.b32 $0, 0;",
        "=r,l,r",
        [first.to(tl.int64), bytes_each],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def _prefetch_rows(
    weight, columns, depth: tl.constexpr, begin, ahead: tl.constexpr, BLOCK: tl.constexpr, ITEM: tl.constexpr
):
    """Ask for `ahead` numbers of each of the rows `columns` [BLOCK] of a weight, from place `begin` on."""
    halves = tl.arange(0, 2)
    first = weight + columns[:, None] * depth + begin + halves[None, :] * (ahead // 2)
    _prefetch(first, tl.full((BLOCK, 2), ahead // 2 * ITEM, tl.int32))


@triton.jit
def _prefetch_run(first, numbers, ITEM: tl.constexpr):
    """Ask for so many numbers that lie one after the other; what doesn't fill 128 equal pieces is left out."""
    each_bytes = (numbers * ITEM // 2048 * 16).to(tl.int32)
    if each_bytes > 0:
        pieces = tl.arange(0, 128)
        _prefetch(first + pieces * (each_bytes // ITEM), tl.full((128,), 0, tl.int32) + each_bytes)


@triton.jit(do_not_specialize=["rows"])
def linear_kernel(
    x,  # [B, K]
    weight,  # [N, K]
    out,  # [P, B, N] float32
    rows,
    width,
    depth: tl.constexpr,
    depth_of_part: tl.constexpr,
    ahead: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    HELD: tl.constexpr,
    STAGES: tl.constexpr,
    ITEM: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Partial sums of x · weightᵀ, each over a stretch of the depth.

    The first `HELD` blocks of a program's weights are in shared memory before the input is there. The cache is asked
    for them, and for `ahead` more numbers of each row, before that, because the held ones come in rounds. Only they
    are read as what the cache may drop first: of a loop's loads (cp.async) Triton, 3.6 and 3.7, leaves that out.
    """
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1)
    begin = part * depth_of_part
    row = tl.arange(0, ROWS)
    inner = tl.arange(0, DEPTH)
    weight_at = weight + columns[:, None] * depth + begin + inner[None, :]
    x_at = x + row[:, None] * depth + begin + inner[None, :]
    some_rows = row[:, None] < rows
    if DEPENDENT:
        gdc_launch_dependents()
        if HELD * DEPTH + ahead > 0:
            _prefetch_rows(weight, columns, depth, begin, HELD * DEPTH + ahead, COLUMNS, ITEM)
    held = ()
    for block in tl.static_range(HELD):
        held += (tl.load(weight_at + block * DEPTH, eviction_policy="evict_first"),)
    if DEPENDENT:
        gdc_wait()
    sums = tl.zeros((COLUMNS, ROWS), tl.float32)
    inputs = ()
    for block in tl.static_range(HELD):
        inputs += (tl.load(x_at + block * DEPTH, mask=some_rows, other=0.0),)
    for block in tl.static_range(HELD):
        sums = tl.dot(held[block], tl.trans(inputs[block]), sums, input_precision="ieee")
    for step in tl.range(HELD * DEPTH, depth_of_part, DEPTH, num_stages=STAGES):
        w = tl.load(weight_at + step)
        some = tl.load(x_at + step, mask=some_rows, other=0.0)
        sums = tl.dot(w, tl.trans(some), sums, input_precision="ieee")
    at = out + part * rows * width + row[None, :] * width + columns[:, None]
    tl.store(at, sums, mask=row[None, :] < rows)


@triton.jit(do_not_specialize=["rows"])
def gate_up_kernel(
    x,  # [B, K]
    weight,  # [2 · N, K], gate first
    out,  # [B, N]
    rows,
    width,
    depth: tl.constexpr,
    ahead: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    HELD: tl.constexpr,
    STAGES: tl.constexpr,
    ITEM: tl.constexpr,
    DEPENDENT: tl.constexpr,
    EARLY: tl.constexpr,  # let the next kernel begin from the start on, or only when the weights are read
):
    """gelu(gate · x) · (up · x), with the tanh form of gelu; see linear_kernel."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.arange(0, ROWS)
    inner = tl.arange(0, DEPTH)
    up = weight + width * depth
    gate_at = weight + columns[:, None] * depth + inner[None, :]
    up_at = up + columns[:, None] * depth + inner[None, :]
    x_at = x + row[:, None] * depth + inner[None, :]
    some_rows = row[:, None] < rows
    if DEPENDENT and EARLY:
        gdc_launch_dependents()
    if DEPENDENT and HELD * DEPTH + ahead > 0:
        _prefetch_rows(weight, columns, depth, 0, HELD * DEPTH + ahead, COLUMNS, ITEM)
        _prefetch_rows(up, columns, depth, 0, HELD * DEPTH + ahead, COLUMNS, ITEM)
    held_gates, held_ups = (), ()
    for block in tl.static_range(HELD):
        held_gates += (tl.load(gate_at + block * DEPTH, eviction_policy="evict_first"),)
        held_ups += (tl.load(up_at + block * DEPTH, eviction_policy="evict_first"),)
    if DEPENDENT:
        gdc_wait()
    gates = tl.zeros((COLUMNS, ROWS), tl.float32)
    ups = tl.zeros((COLUMNS, ROWS), tl.float32)
    inputs = ()
    for block in tl.static_range(HELD):
        inputs += (tl.load(x_at + block * DEPTH, mask=some_rows, other=0.0),)
    for block in tl.static_range(HELD):
        gates = tl.dot(held_gates[block], tl.trans(inputs[block]), gates, input_precision="ieee")
        ups = tl.dot(held_ups[block], tl.trans(inputs[block]), ups, input_precision="ieee")
    for step in tl.range(HELD * DEPTH, depth, DEPTH, num_stages=STAGES):
        w_gate = tl.load(gate_at + step)
        w_up = tl.load(up_at + step)
        some = tl.trans(tl.load(x_at + step, mask=some_rows, other=0.0))
        gates = tl.dot(w_gate, some, gates, input_precision="ieee")
        ups = tl.dot(w_up, some, ups, input_precision="ieee")
    if DEPENDENT and not EARLY:
        gdc_launch_dependents()
    bent = 0.7978845608028654 * (gates + 0.044715 * gates * gates * gates)  # √(2/π)
    gelu = gates * tl.sigmoid(2.0 * bent)  # (1 + tanh(y)) / 2 = sigmoid(2 y)
    at = out + row[None, :] * width + columns[:, None]
    tl.store(at, (gelu * ups).to(out.dtype.element_ty), mask=row[None, :] < rows)


@triton.jit
def _normed(x, gain, eps, width: tl.constexpr):
    return x * tl.rsqrt(tl.sum(x * x, 0) / width + eps) * gain


@triton.jit
def _sum_of_parts(parts, rows, width, at, inside, PARTS: tl.constexpr):
    """Add partial sums [P, B, N] up where `at` points into one of them."""
    total = tl.load(parts + at, mask=inside, other=0.0)
    for part in tl.static_range(1, PARTS):
        total += tl.load(parts + part * rows * width + at, mask=inside, other=0.0)
    return total


@triton.jit
def _sum(parts, PARTS: tl.constexpr, OF_PRODUCT: tl.constexpr):
    """Add tensors up one after the other, each thread its own numbers.

    What a product of matrices takes or adds to (`OF_PRODUCT`) has its last addition made by `tl.sum`: across mere
    additions Triton moves the product's layout back to every single load, a way through shared memory for each.
    """
    plain: tl.constexpr = PARTS - 1 if OF_PRODUCT and PARTS > 1 else PARTS
    total = parts[0]
    for part in tl.static_range(1, plain):
        total += parts[part]
    if plain < PARTS:
        total = tl.sum(tl.join(total, parts[plain]), -1)
    return total


@triton.jit
def embed_kernel(
    codes,  # [B] int64
    table,  # [V, H]
    gain,  # [H] of the first layer's norm
    filled,  # [B] int64
    total_frames,  # [B] int64
    frequencies,  # [D / 2] float32
    x,  # [B, H] float32, the residual stream
    normed,  # [B, H]
    cosines,  # [B, D / 2] float32
    sines,  # [B, D / 2] float32
    scale,
    eps,
    progress_scale,
    width: tl.constexpr,
    half: tl.constexpr,
    PROGRESS: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Look the last codes up, norm them for the first layer, and turn the rows' places into angles."""
    row = tl.program_id(0)
    if DEPENDENT:  # in this order: so no kernel of a step begins before the step before it has ended
        gdc_wait()
        gdc_launch_dependents()
    column = tl.arange(0, WIDTH)
    inside = column < width
    code = tl.load(codes + row)
    looked_up = tl.load(table + code * width + column, mask=inside, other=0.0).to(tl.float32)
    embedded = (looked_up * scale).to(table.dtype.element_ty).to(tl.float32)
    tl.store(x + row * width + column, embedded, mask=inside)
    of_layer = _normed(embedded, tl.load(gain + column, mask=inside, other=0.0), eps, width)
    tl.store(normed + row * width + column, of_layer.to(normed.dtype.element_ty), mask=inside)
    position = tl.load(filled + row).to(tl.float32)
    if PROGRESS:  # see network.step_positions: a reciprocal and two products, rounded one by one
        frames = tl.maximum(tl.load(total_frames + row) - 1, 1).to(tl.float32)
        position = tl.minimum(position * tl.div_rn(1.0, frames) * progress_scale, progress_scale)
    pair = tl.arange(0, half)
    angles = position * tl.load(frequencies + pair)
    tl.store(cosines + row * half + pair, tl.cos(angles))
    tl.store(sines + row * half + pair, tl.sin(angles))


@triton.jit(do_not_specialize=["rows"])
def add_norm_kernel(
    parts,  # [P, B, H] float32, what a block says
    x,  # [B, H] float32, the residual stream
    gain_after,  # [H] of the block
    gain_before,  # [H] of the next block
    normed,  # [B, H]
    filled,  # [B] int64
    occupied,  # [B] int64
    rows,
    eps,
    width: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    LAST: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x += norm(what a block said); and x normed for the next block. The last one counts the frames."""
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    if DEPENDENT:
        gdc_launch_dependents()
    after = tl.load(gain_after + column, mask=inside, other=0.0)
    before = tl.load(gain_before + column, mask=inside, other=0.0)
    if DEPENDENT:
        gdc_wait()
    said = _sum_of_parts(parts, rows, width, row * width + column, inside, PARTS)
    residual = tl.load(x + row * width + column, mask=inside, other=0.0)
    residual += _normed(said, after, eps, width)
    tl.store(x + row * width + column, residual, mask=inside)
    for_next = _normed(residual, before, eps, width)
    tl.store(normed + row * width + column, for_next.to(normed.dtype.element_ty), mask=inside)
    if LAST:
        tl.store(filled + row, tl.load(filled + row) + tl.load(occupied + row))


@triton.jit
def _turned(lower, upper, cosine, sine):
    """Turn the halves of heads by their angles; see network.rotate."""
    return lower * cosine - upper * sine, upper * cosine + lower * sine


@triton.jit
def _repeated(x, times: tl.constexpr, rows: tl.constexpr):
    """Return [rows, N] of x [rows / times, N], its rows again and again."""
    return tl.reshape(tl.broadcast_to(x[None, :, :], (times, x.shape[0], x.shape[1])), (rows, x.shape[1]))


@triton.jit
def _heard(lower, upper, lower_keys, upper_keys, values, seen, peak, mass, heard, scale, softcap, CAPPED: tl.constexpr):
    """Go on with the softmax of scores, and what is heard by it, over a stretch of frames."""
    scores = tl.dot(lower, tl.trans(lower_keys), input_precision="ieee")
    scores = tl.dot(upper, tl.trans(upper_keys), scores, input_precision="ieee") * scale  # [QUERIES, FRAMES]
    if CAPPED:
        scores = (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0) * softcap  # tanh
    scores = tl.where(seen[None, :], scores, float("-inf"))
    higher = tl.maximum(peak, tl.max(scores, 1))
    base = tl.where(higher == float("-inf"), 0.0, higher)  # nothing heard yet, and no frame here
    kept = tl.exp(peak - base)
    weights = tl.exp(scores - base[:, None])
    mass = mass * kept + tl.sum(weights, 1)
    heard = tl.dot(weights.to(values.dtype), values, heard * kept[:, None], input_precision="ieee")
    return higher, mass, heard


@triton.jit(do_not_specialize=["rows"])
def attention_kernel(
    parts,  # [P, B, (A + 2 G) · D] float32 queries, keys, values; queries alone where the text is read
    cosines,  # [B, D / 2]
    sines,  # [B, D / 2]
    lengths,  # [B] int64: frames before the new one, or text tokens
    keys,  # [slots, G, capacity, D]
    values,  # [slots, G, capacity, D]
    out,  # [B, A · D]; of several stretches [stretches, B, A, D] float32
    peaks,  # [stretches, B, A] float32, the largest score of a stretch
    masses,  # [stretches, B, A] float32, the sum of its weights
    rows,
    capacity,
    scale,
    softcap,
    kv_heads: tl.constexpr,
    group: tl.constexpr,  # query heads that share a key/value head
    size: tl.constexpr,
    window: tl.constexpr,  # 0: none
    stretches: tl.constexpr,
    PARTS: tl.constexpr,
    OWN: tl.constexpr,  # the rows' own frames, with a new one; else their texts
    TURNED: tl.constexpr,
    CAPPED: tl.constexpr,
    FRAMES: tl.constexpr,
    STAGES: tl.constexpr,
    GROUP: tl.constexpr,  # `group`, rounded up to a power of two
    QUERIES: tl.constexpr,  # as many rows as a product of matrices takes: the group's queries again and again
    ITEM: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Attention of one row's new queries of one key/value head to a stretch of what is kept of it."""
    row = tl.program_id(0) // kv_heads
    head = tl.program_id(0) % kv_heads
    stretch = tl.program_id(1)
    half: tl.constexpr = size // 2
    memory = (row * kv_heads + head).to(tl.int64) * capacity * size
    dtype = keys.dtype.element_ty
    if DEPENDENT:
        gdc_launch_dependents()
    # Of this step from its beginning on: the last kernel counts on. Not from the first cache, it may have that before.
    length = tl.load(lengths + row, cache_modifier=".cg").to(tl.int32)
    first = 0
    if OWN and window > 0:
        first = tl.maximum(length - window + 1, 0)
    each = tl.cdiv(tl.cdiv(length - first, stretches), FRAMES) * FRAMES
    begin = first + stretch * each
    end = tl.minimum(begin + each, length)
    query, pair, place = tl.arange(0, QUERIES), tl.arange(0, half), tl.arange(0, size)
    frame = tl.arange(0, FRAMES)
    seen = begin + frame < end
    of_frames = keys + memory + (begin + frame)[:, None] * size + pair[None, :]
    first_keys = tl.load(of_frames, mask=seen[:, None], other=0.0)
    first_upper_keys = tl.load(of_frames + half, mask=seen[:, None], other=0.0)
    of_frames = values + memory + (begin + frame)[:, None] * size + place[None, :]
    first_values = tl.load(of_frames, mask=seen[:, None], other=0.0)
    if DEPENDENT:
        more = begin + FRAMES
        if end > more:
            _prefetch_run(keys + memory + more * size, (end - more) * size, ITEM)
            _prefetch_run(values + memory + more * size, (end - more) * size, ITEM)
        gdc_wait()

    width: tl.constexpr = (kv_heads * group + 2 * kv_heads) * size if OWN else kv_heads * group * size
    row_parts = parts + row * width
    member = tl.arange(0, GROUP)
    wanted = (member < group)[:, None]
    query_at = row_parts + (head * group + member)[:, None] * size + pair[None, :]
    key_at = row_parts + (kv_heads * group + head) * size + pair
    value_at = row_parts + (kv_heads * (group + 1) + head) * size + place
    # All loads first, then the sums: one wait instead of many. A load for each part, so that a thread has all parts of
    # its numbers: parts as one more axis of a load are spread over the warps, which then wait for one another.
    lower_parts, upper_parts, key_lower_parts, key_upper_parts, value_parts = (), (), (), (), ()
    for part in tl.static_range(PARTS):
        before = part * rows * width
        lower_parts += (tl.load(query_at + before, mask=wanted, other=0.0),)
        upper_parts += (tl.load(query_at + before + half, mask=wanted, other=0.0),)
        if OWN:
            key_lower_parts += (tl.load(key_at + before),)
            key_upper_parts += (tl.load(key_at + before + half),)
            value_parts += (tl.load(value_at + before),)
    if TURNED:
        cosine, sine = tl.load(cosines + row * half + pair), tl.load(sines + row * half + pair)
    lower, upper = _sum(lower_parts, PARTS, True), _sum(upper_parts, PARTS, True)  # [GROUP, half]
    if TURNED:
        lower, upper = _turned(lower, upper, cosine[None, :], sine[None, :])
    lower, upper = lower.to(dtype), upper.to(dtype)
    peak = tl.full((QUERIES,), float("-inf"), tl.float32)
    mass = tl.zeros((QUERIES,), tl.float32)
    heard = tl.zeros((QUERIES, size), tl.float32)
    if OWN:  # the new frame is heard by the first stretch, before it lies in the memory
        key_lower, key_upper = _sum(key_lower_parts, PARTS, False), _sum(key_upper_parts, PARTS, False)
        key_lower, key_upper = _turned(key_lower, key_upper, cosine, sine)
        key_lower, key_upper = key_lower.to(dtype), key_upper.to(dtype)
        value = _sum(value_parts, PARTS, True).to(dtype)
        new_frame = memory + length * size
        mine = stretch == 0
        tl.store(keys + new_frame + pair, key_lower, mask=mine)
        tl.store(keys + new_frame + half + pair, key_upper, mask=mine)
        tl.store(values + new_frame + place, value, mask=mine)
        products = lower.to(tl.float32) * key_lower.to(tl.float32)[None, :]
        products += upper.to(tl.float32) * key_upper.to(tl.float32)[None, :]
        score = tl.sum(products, 1) * scale  # [GROUP]
        if CAPPED:
            score = (2.0 * tl.sigmoid(2.0 * score / softcap) - 1.0) * softcap
        score = tl.reshape(tl.broadcast_to(score[None, :], (QUERIES // GROUP, GROUP)), (QUERIES,))
        peak = tl.where(mine, score, peak)
        mass += tl.where(mine, 1.0, 0.0)
        heard += tl.where(mine, value.to(tl.float32), 0.0)[None, :]
    lower = _repeated(lower, QUERIES // GROUP, QUERIES)
    upper = _repeated(upper, QUERIES // GROUP, QUERIES)

    peak, mass, heard = _heard(
        lower, upper, first_keys, first_upper_keys, first_values, seen, peak, mass, heard, scale, softcap, CAPPED
    )
    for step in tl.range(begin + FRAMES, end, FRAMES, num_stages=STAGES):
        seen = step + frame < end
        of_frames = keys + memory + (step + frame)[:, None] * size + pair[None, :]
        lower_keys = tl.load(of_frames, mask=seen[:, None], other=0.0)
        upper_keys = tl.load(of_frames + half, mask=seen[:, None], other=0.0)
        of_frames = values + memory + (step + frame)[:, None] * size + place[None, :]
        their_values = tl.load(of_frames, mask=seen[:, None], other=0.0)
        peak, mass, heard = _heard(
            lower, upper, lower_keys, upper_keys, their_values, seen, peak, mass, heard, scale, softcap, CAPPED
        )

    one = query < group
    head_at = row * kv_heads * group + head * group + query
    out_at = head_at[:, None] * size + place[None, :]
    if stretches == 1:
        tl.store(out + out_at, (heard / mass[:, None]).to(out.dtype.element_ty), mask=one[:, None])
    else:
        heads = rows * kv_heads * group
        tl.store(out + stretch * heads * size + out_at, heard, mask=one[:, None])
        tl.store(peaks + stretch * heads + head_at, peak, mask=one)
        tl.store(masses + stretch * heads + head_at, mass, mask=one)


@triton.jit(do_not_specialize=["heads"])
def join_kernel(
    heard,  # [stretches, B, A, D] float32
    peaks,  # [stretches, B, A] float32
    masses,  # [stretches, B, A] float32
    out,  # [B, A · D]
    heads,  # B · A
    size: tl.constexpr,
    stretches: tl.constexpr,
    STRETCHES: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Join what a head heard in several stretches."""
    head = tl.program_id(0)
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    stretch, place = tl.arange(0, STRETCHES), tl.arange(0, size)
    there = stretch < stretches
    peak = tl.load(peaks + stretch * heads + head, mask=there, other=float("-inf"))
    kept = tl.exp(peak - tl.max(peak, 0))  # an empty stretch has no peak and no mass
    mass = tl.sum(kept * tl.load(masses + stretch * heads + head, mask=there, other=0.0), 0)
    at = heard + (stretch[:, None] * heads + head) * size + place[None, :]
    joined = tl.sum(tl.load(at, mask=there[:, None], other=0.0) * kept[:, None], 0)
    tl.store(out + head * size + place, (joined / mass).to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["rows"])
def gelu_kernel(
    parts,  # [P, B, H] float32
    bias,  # [H]
    out,  # [B, H]
    rows,
    width: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """gelu(sum + bias), with the error function."""
    row = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    inside = column < width
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    x = _sum_of_parts(parts, rows, width, row * width + column, inside, PARTS)
    x += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    gelu = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    tl.store(out + row * width + column, gelu.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _ordered(x):
    """Turn float32 numbers into uint32 ones of the same order, none of them 0; what is no number is the largest."""
    bits = x.to(tl.int32, bitcast=True)
    bits = tl.where(x != x, NOT_A_NUMBER_KEY, bits)
    return ((bits ^ ((bits >> 31) & 0x7FFFFFFF)) ^ -0x80000000).to(tl.uint32, bitcast=True)


@triton.jit(do_not_specialize=["rows", "first"])
def logits_kernel(
    x,  # [B, K]
    weight,  # [V, K]
    bias,  # [V]
    steps,  # [R] int64
    logits,  # [B, V] float32
    best,  # [B, tiles] uint32, the largest logit of every tile as `_ordered` tells it
    first,  # slot
    rows,
    vocab_size,
    end_code,
    earliest_end,
    too_early_logit,
    depth: tl.constexpr,
    ahead: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    HELD: tl.constexpr,
    STAGES: tl.constexpr,
    ITEM: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x · weightᵀ + bias, the end code's logit put down where it is too early for it."""
    tile = tl.program_id(0)
    columns = tile * COLUMNS + tl.arange(0, COLUMNS)
    known = columns < vocab_size
    inside = tl.minimum(columns, vocab_size - 1)  # beyond the last column the last is read again
    row = tl.arange(0, ROWS)
    inner = tl.arange(0, DEPTH)
    weight_at = weight + inside[:, None] * depth + inner[None, :]
    x_at = x + row[:, None] * depth + inner[None, :]
    some_rows = row[:, None] < rows
    if DEPENDENT:
        gdc_launch_dependents()
        if ahead > 0:
            _prefetch_rows(weight, inside, depth, 0, ahead, COLUMNS, ITEM)
        gdc_wait()
    sums = tl.zeros((COLUMNS, ROWS), tl.float32)
    for step in tl.range(0, depth, DEPTH, num_stages=STAGES):
        w = tl.load(weight_at + step)
        some = tl.load(x_at + step, mask=some_rows, other=0.0)
        sums = tl.dot(w, tl.trans(some), sums, input_precision="ieee")
    sums += tl.load(bias + inside).to(tl.float32)[:, None]
    too_early = tl.load(steps + first + row, mask=row < rows, other=0) < earliest_end
    sums = tl.where((columns == end_code)[:, None] & too_early[None, :], too_early_logit, sums)
    at = logits + row[None, :].to(tl.int64) * vocab_size + columns[:, None]
    tl.store(at, sums, mask=known[:, None] & (row[None, :] < rows))
    largest = tl.max(tl.where(known[:, None], _ordered(sums), 0), 0)
    tl.store(best + row * tl.num_programs(0) + tile, largest, mask=row < rows)


@triton.jit
def _kth_largest(ordered, k: tl.constexpr):
    """Return the k-th largest of at most 2²⁰ uint32 numbers, two bits at a time; 0 if there are fewer that aren't 0."""
    found = tl.full((), 0, tl.uint32)
    unit = tl.full((), 0x40000000, tl.uint32)
    for _ in range(16):
        # How many reach each of the three larger values of the two bits: three counts in one number, one sum.
        counts = (ordered >= found + unit).to(tl.int64)
        counts += (ordered >= found + 2 * unit).to(tl.int64) << 21
        counts += (ordered >= found + 3 * unit).to(tl.int64) << 42
        reached = tl.sum(counts, 0)
        bits = ((reached & 0x1FFFFF) >= k).to(tl.uint32) + (((reached >> 21) & 0x1FFFFF) >= k).to(tl.uint32)
        found += (bits + ((reached >> 42) >= k).to(tl.uint32)) * unit
        unit = unit >> 2
    return found


@triton.jit
def _k_largest(ordered, k: tl.constexpr):
    """Return where each of the k largest goes, which they are, and how many; of equal ones the first, 0 is none."""
    least = tl.maximum(_kth_largest(ordered, k), 1)
    larger, equal = (ordered > least).to(tl.int32), (ordered == least).to(tl.int32)
    place = tl.where(larger > 0, tl.cumsum(larger, 0), tl.sum(larger, 0) + tl.cumsum(equal, 0)) - 1
    chosen = (larger + equal > 0) & (place < k)
    return place, chosen, tl.sum(chosen.to(tl.int32), 0)


@triton.jit
def _mixed(x, shift: tl.constexpr, factor: tl.constexpr):
    return ((x ^ (x >> shift)) * factor).to(tl.uint64)


@triton.jit(do_not_specialize=["first"])
def draw_kernel(
    logits,  # [B, V] float32
    best,  # [B, tiles] uint32
    tiles_kept,  # [B, C] int32, scratch
    ids_kept,  # [B, C] int32, scratch
    temperatures,  # [R] float32
    top_ks,  # [R] int64
    top_ps,  # [R] float32
    greedies,  # [R] bool
    keys,  # [R] int64, of the noise
    steps,  # [R] int64
    last_steps,  # [R] int64
    occupied,  # [R] int64
    ended,  # [R] bool
    reasons,  # [R] int64
    lengths,  # [R] int64
    codes,  # [R, capacity] int64
    last_codes,  # [R] int64
    first,  # slot
    vocab_size,
    tiles,
    capacity,
    end_code,
    GOLDEN: tl.constexpr,
    FIRST_FACTOR: tl.constexpr,
    SECOND_FACTOR: tl.constexpr,
    COLUMNS: tl.constexpr,  # of a tile of logits
    TILES: tl.constexpr,
    CANDIDATES: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Draw a code for a row from its best ids and note it; `sampling.draw` and `RowState.record` in one.

    The C best ids lie in the C tiles whose best are the largest, so only those are looked at.
    """
    row = tl.program_id(0)
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    place = tl.arange(0, CANDIDATES)
    slot = first + row
    step = tl.load(steps + slot)
    ended_before = tl.load(ended + slot) != 0

    tile = tl.arange(0, TILES)
    of_tiles = tl.load(best + row * tiles + tile, mask=tile < tiles, other=0)
    into, chosen, count = _k_largest(of_tiles, CANDIDATES)
    tl.store(tiles_kept + row * CANDIDATES + into, tile, mask=chosen)
    tl.debug_barrier()  # threads read below what others wrote
    kept_tile = tl.load(tiles_kept + row * CANDIDATES + place, mask=place < count, other=0)
    column = kept_tile[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    there = (place < count)[:, None] & (column < vocab_size)
    of_row = logits + row.to(tl.int64) * vocab_size
    ordered = tl.where(there, _ordered(tl.load(of_row + column, mask=there, other=0.0)), 0)
    ordered = tl.reshape(ordered, (CANDIDATES * COLUMNS,))
    column = tl.reshape(column, (CANDIDATES * COLUMNS,))
    into, chosen, count = _k_largest(ordered, CANDIDATES)
    tl.store(ids_kept + row * CANDIDATES + into, column, mask=chosen)
    tl.debug_barrier()

    candidate = place < count
    ids = tl.load(ids_kept + row * CANDIDATES + place, mask=candidate, other=0)
    scaled = tl.div_rn(tl.load(of_row + ids, mask=candidate, other=0.0), tl.load(temperatures + slot))
    # Most likely first, of equal ones the lower id: sorted as one number of 64 bits.
    both = (_ordered(scaled).to(tl.uint64) << 32) | (0xFFFFFFFF - ids.to(tl.uint64))
    both = tl.sort(tl.where(candidate, both, 0), descending=True)
    ids = (0xFFFFFFFF - (both & 0xFFFFFFFF)).to(tl.int32)
    bits = ((both >> 32).to(tl.uint32) ^ 0x80000000).to(tl.int32, bitcast=True)
    scaled = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    scaled = tl.where(candidate, scaled, float("-inf"))
    likeliest = tl.sum(tl.where(place == 0, ids, 0), 0)
    broken = tl.max(((scaled != scaled) & candidate).to(tl.int32), 0) > 0
    scaled = tl.where(broken, 0.0, scaled)  # whatever is drawn then, it isn't used
    highest = tl.max(tl.where(place == 0, scaled, float("-inf")), 0)

    top_k = tl.minimum(tl.load(top_ks + slot), count.to(tl.int64)) - 1
    threshold = tl.max(tl.where(place == top_k, scaled, float("-inf")), 0)
    kept = candidate & (scaled >= threshold)
    shares = tl.where(kept, tl.exp(scaled - highest), 0.0)
    shares = shares / tl.sum(shares, 0)
    before = tl.cumsum(shares, 0) - shares
    kept = kept & ((place == 0) | (before <= tl.load(top_ps + slot)))

    noise = (tl.load(keys + slot) + (step + 1) * GOLDEN).to(tl.uint64, bitcast=True)
    noise = _mixed(_mixed(noise, 30, FIRST_FACTOR), 27, SECOND_FACTOR)
    uniform = ((noise ^ (noise >> 31)) >> 11).to(tl.float64) * 1.1102230246251565e-16  # 2⁻⁵³
    masses = tl.where(kept, tl.exp(scaled.to(tl.float64) - highest.to(tl.float64)), 0.0)
    # Through the kept ids in the order of their numbers; for each, the mass of those up to it.
    other_ids = tl.trans(tl.broadcast_to(ids[:, None], (CANDIDATES, CANDIDATES)))
    other_masses = tl.trans(tl.broadcast_to(masses[:, None], (CANDIDATES, CANDIDATES)))
    sums = tl.sum(tl.where(other_ids <= ids[:, None], other_masses, 0.0), 1)
    reached = kept & (sums > uniform * tl.sum(masses, 0))
    drawn = tl.min(tl.where(reached, ids, 0x7FFFFFFF), 0)
    drawn = tl.where(drawn == 0x7FFFFFFF, tl.max(tl.where(kept, ids, 0), 0), drawn)
    drawn = tl.where((tl.load(greedies + slot) != 0) | broken, likeliest, drawn)

    stops = (drawn == end_code) | (likeliest == end_code)
    ending = (stops | broken | (step > tl.load(last_steps + slot))) & (ended_before == 0)
    if ending:
        tl.store(reasons + slot, tl.where(broken, BROKEN, tl.where(stops, STOP, LENGTH)).to(tl.int64))
        tl.store(lengths + slot, step)
    tl.store(ended + slot, (ending | ended_before).to(tl.int8))
    tl.store(codes + slot.to(tl.int64) * capacity + step, drawn.to(tl.int64))
    tl.store(last_codes + slot, drawn.to(tl.int64))
    tl.store(steps + slot, step + tl.load(occupied + slot))
