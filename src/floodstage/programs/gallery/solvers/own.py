"""A solver for each task of the gallery, straight lines over `grids`."""

from grids import *


def solve_upside_down(grid):
    return flip_rows(grid)


def solve_left_right(grid):
    return flip_columns(grid)


def solve_quarter_turn(grid):
    return turn(grid)


def solve_turned_round(grid):
    return half_turn(grid)


def solve_rows_to_columns(grid):
    return transpose(grid)


def solve_upper_half(grid):
    return top_half(grid)


def solve_larger(grid):
    return scale(grid, 3)


def solve_every_other(grid):
    return shrink(grid, 2)


def solve_four_copies(grid):
    return tile(grid, 2, 2)


def solve_mirror_beside(grid):
    mirror = flip_columns(grid)
    return beside(grid, mirror)


def solve_mirror_below(grid):
    mirror = flip_rows(grid)
    return above(grid, mirror)


def solve_kaleidoscope(grid):
    mirror = flip_columns(grid)
    wide = beside(grid, mirror)
    below = flip_rows(wide)
    return above(wide, below)


def solve_one_step_right(grid):
    return roll(grid, 0, 1)


def solve_stretched(grid):
    return squeeze(grid)


def solve_three_to_seven(grid):
    return recolour(grid, 3, 7)


def solve_one_for_two(grid):
    return swap(grid, 1, 2)


def solve_most_of_it(grid):
    colour = commonest(grid)
    return blank(height(grid), width(grid), colour)


def solve_colour_bar(grid):
    colour = ink(grid)
    number = count(grid, colour)
    return blank(1, number, colour)


def solve_framed(grid):
    return frame(grid, 8)


def solve_stripes(grid):
    return shoot(grid, 1, 0)


def solve_to_the_right(grid):
    return shoot(grid, 0, 1)


def solve_bridges(grid):
    return bridge(grid)


def solve_crosshair(grid):
    upright = overlay(shoot(grid, 1, 0), shoot(grid, -1, 0))
    level = overlay(shoot(grid, 0, 1), shoot(grid, 0, -1))
    return overlay(upright, level)


def solve_sand(grid):
    return fall(grid)


def solve_bars_in_order(grid):
    columns = turn(grid)
    bars = ordered(columns, lambda bar: len(bar) - bar.count(0))
    return turn_back(bars)


def solve_in_both(grid):
    return both(left_half(grid), right_half(grid), 4)


def solve_in_either(grid):
    return either(left_half(grid), right_half(grid), 4)


def solve_in_one(grid):
    return differ(left_half(grid), right_half(grid), 4)


def solve_in_neither(grid):
    return neither(left_half(grid), right_half(grid), 4)


def solve_cut_out(grid):
    return trim(grid)


def solve_the_largest(grid):
    found = pieces(grid)
    largest = most(found, size)
    return cut(grid, largest)


def solve_colour_of_the_least(grid):
    found = pieces(grid)
    smallest = least(found, size)
    return blank(1, 1, hue(smallest))


def solve_first_and_rest(grid):
    largest = most(pieces(grid), size)
    second = inked(grid, 2)
    return paint(second, largest, 1)


def solve_one_colour_off(grid):
    found = pieces(grid)
    other = odd(found, hue)
    return picture(other)


def solve_without_dust(grid):
    found = pieces(grid)
    dust = where(found, lambda piece: size(piece) == 1)
    return paint(grid, joined(dust), 0)


def solve_filled(grid):
    inner = joined(holes(grid))
    return paint(grid, inner, 4)


def solve_how_many_hollow(grid):
    found = holes(grid)
    return blank(1, len(found), 3)


def solve_inside(grid):
    whole = trim(grid)
    return crop(whole, 1, 1, height(whole) - 2, width(whole) - 2)


def solve_walled(grid):
    walls = joined(tuple(ring(piece) for piece in pieces(grid)))
    return paint(grid, walls, 6)
