"""Solvers for some public training tasks of ARC, written from what the tasks show, over `grids`."""

from grids import *


def solve_67a3c6ac(grid):
    return flip_columns(grid)


def solve_68b16354(grid):
    return flip_rows(grid)


def solve_74dd1130(grid):
    return transpose(grid)


def solve_9dfd6313(grid):
    return transpose(grid)


def solve_3c9b0459(grid):
    return half_turn(grid)


def solve_6150a2bd(grid):
    return half_turn(grid)


def solve_ed36ccf7(grid):
    return turn_back(grid)


def solve_a416b8f3(grid):
    return beside(grid, grid)


def solve_6d0aefbc(grid):
    return beside(grid, flip_columns(grid))


def solve_c9e6f938(grid):
    return beside(grid, flip_columns(grid))


def solve_6fa7a44f(grid):
    return above(grid, flip_rows(grid))


def solve_8be77c9e(grid):
    return above(grid, flip_rows(grid))


def solve_4c4377d9(grid):
    return above(flip_rows(grid), grid)


def solve_46442a0e(grid):
    top = beside(grid, turn(grid))
    bottom = beside(turn_back(grid), half_turn(grid))
    return above(top, bottom)


def solve_7fe24cdd(grid):
    top = beside(grid, turn(grid))
    bottom = beside(turn_back(grid), half_turn(grid))
    return above(top, bottom)


def solve_62c24649(grid):
    wide = beside(grid, flip_columns(grid))
    return above(wide, flip_rows(wide))


def solve_67e8384a(grid):
    wide = beside(grid, flip_columns(grid))
    return above(wide, flip_rows(wide))


def solve_3af2c5a8(grid):
    wide = beside(grid, flip_columns(grid))
    return above(wide, flip_rows(wide))


def solve_9172f3a0(grid):
    return scale(grid, 3)


def solve_c59eb873(grid):
    return scale(grid, 2)


def solve_b91ae062(grid):
    return scale(grid, len(colours(grid)) - 1)


def solve_ac0a08a4(grid):
    return scale(grid, len(colours(grid)) - 1)


def solve_b1948b0a(grid):
    return recolour(grid, 6, 2)


def solve_c8f0f002(grid):
    return recolour(grid, 7, 5)


def solve_d511f180(grid):
    return swap(grid, 5, 8)


def solve_0d3d703e(grid):
    outer = swap(swap(grid, 1, 5), 2, 6)
    return swap(swap(outer, 3, 4), 8, 9)


def solve_d10ecb37(grid):
    return crop(grid, 0, 0, 2, 2)


def solve_5bd6f4ac(grid):
    return crop(grid, 0, 6, 3, 3)


def solve_2dee498d(grid):
    return first(split_columns(grid, 3))


def solve_7b7f7511(grid):
    wide = width(grid) > height(grid)
    return left_half(grid) if wide else top_half(grid)


def solve_5582e5ca(grid):
    return blank(3, 3, commonest(grid))


def solve_1cf80156(grid):
    return trim(grid)


def solve_a740d043(grid):
    return recolour(trim(grid, 1), 1, 0)


def solve_25ff71a9(grid):
    return roll(grid, 1, 0)


def solve_a79310a0(grid):
    return recolour(roll(grid, 1, 0), 8, 2)


def solve_6f8cd79b(grid):
    return frame(grid, 8)


def solve_a5313dff(grid):
    return paint(grid, joined(holes(grid)), 1)


def solve_00d62c1b(grid):
    return paint(grid, joined(holes(grid)), 4)


def solve_44f52bb0(grid):
    same = grid == flip_columns(grid)
    return blank(1, 1, 1 if same else 7)


def solve_0520fde7(grid):
    return both(left_half(grid), right_half(grid), 2)


def solve_3428a4f5(grid):
    return differ(top_half(grid), bottom_half(grid), 3)


def solve_99b1bc43(grid):
    return differ(top_half(grid), bottom_half(grid), 3)


def solve_f2829549(grid):
    return neither(left_half(grid), right_half(grid), 3)


def solve_fafffa47(grid):
    return neither(top_half(grid), bottom_half(grid), 2)


def solve_94f9d214(grid):
    return neither(top_half(grid), bottom_half(grid), 2)


def solve_ce4f8723(grid):
    return either(top_half(grid), bottom_half(grid), 3)


def solve_1b2d62fb(grid):
    return neither(left_half(grid), right_half(grid), 8)


def solve_be94b721(grid):
    return cut(grid, most(pieces(grid), size))


def solve_23b5c85d(grid):
    ground = commonest(grid)
    return cut(grid, least(pieces(grid, ground=ground), size))


def solve_1f85a75f(grid):
    return cut(grid, most(pieces(grid, diagonal=True), size))


def solve_d037b0a7(grid):
    return shoot(grid, 1, 0)


def solve_f25ffba3(grid):
    bottom = bottom_half(grid)
    return above(flip_rows(bottom), bottom)


def solve_496994bd(grid):
    return overlay(grid, flip_rows(grid))


def solve_f25fbde4(grid):
    return scale(trim(grid), 2)


def solve_7468f01a(grid):
    return flip_columns(trim(grid))


def solve_28bf18c6(grid):
    part = trim(grid)
    return beside(part, part)


def solve_1e0a9b12(grid):
    return fall(grid)


def solve_3906de3d(grid):
    return flip_rows(fall(flip_rows(grid)))


def solve_22168020(grid):
    return bridge(grid)


def solve_dbc1a6ce(grid):
    upright = transpose(bridge(transpose(grid), 8))
    return overlay(overlay(upright, bridge(grid, 8)), grid)


def solve_ded97339(grid):
    upright = transpose(bridge(transpose(grid)))
    return overlay(upright, bridge(grid))


def solve_22eb0ac0(grid):
    return bridge(grid)


def solve_5614dbcf(grid):
    return shrink(recolour(grid, 5, 0), 3)


def solve_90c28cc7(grid):
    return squeeze(trim(grid))


def solve_746b3537(grid):
    return squeeze(grid)


def solve_3aa6fb7a(grid):
    corners = joined(tuple(boxed(piece) for piece in pieces(grid)))
    return overlay(paint(grid, corners, 1), grid)


def solve_60b61512(grid):
    whole = joined(tuple(boxed(piece) for piece in pieces(grid, diagonal=True)))
    return overlay(paint(grid, whole, 7), grid)


def solve_6d75e8bb(grid):
    whole = joined(tuple(boxed(piece) for piece in pieces(grid, diagonal=True)))
    return overlay(paint(grid, whole, 2), grid)


def solve_dc1df850(grid):
    red = where(pieces(grid), lambda piece: hue(piece) == 2)
    rings = joined(tuple(ring(piece) for piece in red))
    return paint(grid, rings, 1)


def solve_4258a5f9(grid):
    rings = joined(tuple(ring(piece) for piece in pieces(grid)))
    return paint(grid, rings, 1)


def solve_b27ca6d3(grid):
    pairs = where(pieces(grid), lambda piece: size(piece) == 2)
    rings = joined(tuple(ring(piece) for piece in pairs))
    return paint(grid, rings, 3)


def solve_913fb3ed(grid):
    found = pieces(grid)
    three = joined(tuple(ring(piece) for piece in where(found, lambda piece: hue(piece) == 3)))
    two = joined(tuple(ring(piece) for piece in where(found, lambda piece: hue(piece) == 2)))
    eight = joined(tuple(ring(piece) for piece in where(found, lambda piece: hue(piece) == 8)))
    return paint(paint(paint(grid, three, 6), two, 1), eight, 4)


def solve_67385a82(grid):
    large = where(pieces(grid), lambda piece: size(piece) > 2)
    return paint(grid, joined(large), 8)


def solve_aedd82e4(grid):
    single = where(pieces(grid), lambda piece: size(piece) == 1)
    return paint(grid, joined(single), 1)


def solve_b230c067(grid):
    small = least(pieces(grid, diagonal=True), size)
    return paint(recolour(grid, 8, 1), small, 2)


def solve_ce22a75a(grid):
    return scale(recolour(shrink(crop(grid, 1, 1, 8, 8), 3), 5, 1), 3)


def solve_a61f2674(grid):
    found = pieces(grid)
    clear = blank(height(grid), width(grid))
    return paint(paint(clear, most(found, size), 1), least(found, size), 2)


def solve_08ed6ac7(grid):
    bars = ordered(pieces(grid), lambda piece: -size(piece))
    one = paint(grid, bars[0], 1)
    two = paint(one, bars[1], 2)
    three = paint(two, bars[2], 3)
    return paint(three, bars[3], 4)


def solve_ea32f347(grid):
    bars = ordered(pieces(grid), size)
    return paint(paint(paint(grid, bars[0], 2), bars[1], 4), bars[2], 1)


def solve_d631b094(grid):
    colour = ink(grid)
    return blank(1, count(grid, colour), colour)


def solve_d23f8c26(grid):
    middle = width(grid) // 2
    column = crop(grid, 0, middle, height(grid), 1)
    side = blank(height(grid), middle)
    return beside(beside(side, column), side)


def solve_bb43febb(grid):
    found = pieces(grid)
    edges = joined(tuple(outline(piece) for piece in found))
    inner = where(joined(found), lambda x: x not in edges)
    return paint(grid, inner, 2)


def solve_4347f46a(grid):
    edges = joined(tuple(outline(piece) for piece in pieces(grid)))
    return place(blank(height(grid), width(grid)), edges)


def solve_50cb2852(grid):
    found = pieces(grid)
    edges = joined(tuple(outline(piece) for piece in found))
    return place(inked(grid, 8), edges)


def solve_f76d97a5(grid):
    other = where(colours(grid), lambda colour: colour != 5)
    return recolour(recolour(grid, other[0], 0), 5, other[0])


def solve_445eab21(grid):
    largest = most(pieces(grid), lambda piece: box(piece)[2] * box(piece)[3])
    return blank(2, 2, hue(largest))


def solve_9565186b(grid):
    kept = commonest(grid)
    return overlay(blank(height(grid), width(grid), 5), only(grid, kept))


def solve_d5d6de2d(grid):
    inner = joined(holes(grid))
    return paint(blank(height(grid), width(grid)), inner, 3)


def solve_c909285e(grid):
    return cut(grid, cells_of(grid, rarest(grid)))


def solve_0b148d64(grid):
    return trim(only(grid, rarest(grid)))


def solve_e9afcf9a(grid):
    top, bottom = grid[0], grid[1]
    mixed = tuple(top[j] if j % 2 == 0 else bottom[j] for j in range(width(grid)))
    other = tuple(bottom[j] if j % 2 == 0 else top[j] for j in range(width(grid)))
    return (mixed, other)


def solve_a87f7484(grid):
    wide = width(grid) > height(grid)
    parts = split_columns(grid, width(grid) // 3) if wide else split_rows(grid, height(grid) // 3)
    return odd(parts, lambda part: inked(part, 1))


def solve_1190e5a7(grid):
    line = most(colours(grid), lambda colour: sum(set(row) == {colour} for row in grid))
    rows = sum(set(row) == {line} for row in grid) + 1
    columns = sum(set(row) == {line} for row in transpose(grid)) + 1
    return blank(rows, columns, first(where(colours(grid), lambda colour: colour != line)))


def solve_a68b268e(grid):
    found = panels(grid)
    return overlay(found[3], overlay(found[2], overlay(found[1], found[0])))


def solve_e98196ab(grid):
    return overlay(top_half(grid), bottom_half(grid))


def solve_dae9d2b5(grid):
    return either(left_half(grid), right_half(grid), 6)


def solve_e3497940(grid):
    return overlay(left_half(grid), flip_columns(right_half(grid)))


def solve_cf98881b(grid):
    a, b, c = crop(grid, 0, 0, 4, 4), crop(grid, 0, 5, 4, 4), crop(grid, 0, 10, 4, 4)
    return overlay(c, overlay(b, a))


def solve_39a8645d(grid):
    found = tuple(picture(piece) for piece in pieces(grid, diagonal=True))
    return most(found, found.count)


def solve_b9b7f026(grid):
    broken = where(pieces(grid), lambda piece: not is_box(piece))
    return blank(1, 1, hue(first(broken)))


def solve_de1cd16c(grid):
    areas = where(colours(grid), lambda colour: colour != rarest(grid))
    counted = most(areas, lambda colour: count(cut(grid, cells_of(grid, colour)), rarest(grid)))
    return blank(1, 1, counted)


def solve_d13f3404(grid):
    wide = beside(grid, blank(3, 3))
    return shoot(above(wide, blank(3, 6)), 1, 1)


def solve_feca6190(grid):
    number = 5 * (len(colours(grid)) - 1)
    bottom = crop(beside(grid, blank(1, number)), 0, 0, 1, number)
    return shoot(above(blank(number - 1, number), bottom), -1, 1)


def solve_623ea044(grid):
    ground = commonest(grid)
    a = overlay(shoot(grid, 1, 1, ground), shoot(grid, -1, -1, ground), ground)
    b = overlay(shoot(grid, 1, -1, ground), shoot(grid, -1, 1, ground), ground)
    return overlay(a, b, ground)


def solve_ff28f65a(grid):
    number = len(pieces(grid))
    places = ((0, 0, 1), (0, 2, 1), (1, 1, 1), (2, 0, 1), (2, 2, 1))
    return place(blank(3, 3), places[:number])


def solve_f8b3ba0a(grid):
    found = where(colours(grid), lambda colour: colour != 0)
    return tuple((colour,) for colour in found[1:])


def solve_f8ff0b80(grid):
    found = ordered(pieces(grid, diagonal=True), lambda piece: -size(piece))
    return tuple((hue(piece),) for piece in found)


def solve_a9f96cdd(grid):
    i, j, _ = first(cells_of(grid, 2))
    corners = ((i - 1, j - 1, 3), (i - 1, j + 1, 6), (i + 1, j - 1, 8), (i + 1, j + 1, 7))
    return place(blank(height(grid), width(grid)), corners)


def solve_e8593010(grid):
    small = pieces(grid, ground=5)
    one = joined(where(small, lambda piece: size(piece) == 1))
    two = joined(where(small, lambda piece: size(piece) == 2))
    three = joined(where(small, lambda piece: size(piece) == 3))
    return paint(paint(paint(grid, one, 3), two, 2), three, 1)


def solve_6e82a1ae(grid):
    found = pieces(grid)
    two = joined(where(found, lambda piece: size(piece) == 2))
    three = joined(where(found, lambda piece: size(piece) == 3))
    four = joined(where(found, lambda piece: size(piece) == 4))
    return paint(paint(paint(grid, two, 3), three, 2), four, 1)


def solve_810b9b61(grid):
    closed = joined(holes(grid))
    ringed = where(pieces(grid), lambda piece: set(closed) & {(i, j + 1, 0) for i, j, _ in piece})
    return paint(grid, joined(ringed), 3)


def solve_3bd67248(grid):
    column = crop(grid, 0, 0, height(grid), 1)
    last_row = height(grid) - 1
    start = place(grid, ((last_row, 0, 2),))
    rising = shoot(only(start, 2), -1, 1)
    flat = paint(grid, tuple((last_row, j, 4) for j in range(1, width(grid))), 4)
    return overlay(overlay(flat, rising), beside(column, blank(height(grid), width(grid) - 1)))


def solve_85c4e7cd(grid):
    half = tuple(grid[i][i] for i in range(height(grid) // 2))
    other = dict(zip(half, half[::-1]))
    return tuple(tuple(other[cell] for cell in row) for row in grid)


def solve_c3e719e8(grid):
    most_of = commonest(grid)
    return tuple(
        tuple(grid[i % 3][j % 3] if grid[i // 3][j // 3] == most_of else 0 for j in range(9))
        for i in range(9)
    )


def solve_007bbfb7(grid):
    mask = scale(grid, 3)
    copies = tile(grid, 3, 3)
    rows = zip(mask, copies)
    return tuple(tuple(b if a else 0 for a, b in zip(r, s)) for r, s in rows)


def solve_8d5021e8(grid):
    upper = beside(flip_columns(grid), grid)
    lower = flip_rows(upper)
    return above(above(lower, upper), lower)


def solve_4be741c5(grid):
    across = tuple(dict.fromkeys(grid[0]))
    down = tuple(dict.fromkeys(transpose(grid)[0]))
    return (across,) if len(across) > 1 else transpose((down,))


def solve_794b24be(grid):
    number = count(grid, 1)
    return place(blank(3, 3), ((0, 0, 2), (0, 1, 2), (0, 2, 2), (1, 1, 2))[:number])


def solve_fcb5c309(grid):
    found = where(pieces(grid), lambda piece: size(piece) > 4)
    frame_of = most(found, lambda piece: count(inked(cut(grid, piece), 1), 1) - size(piece))
    other = odd(colours(grid), lambda colour: colour in (0, hue(frame_of)))
    return inked(cut(grid, frame_of), other)


def solve_9ecd008a(grid):
    hidden = cells_of(grid, 0)
    return cut(flip_columns(grid), hidden)
