"""Little pictures of plain things, drawn by arithmetic that gives the same bits on every machine.

A thing is a signed distance function: for every point its distance to the outline, negative inside. Union is the
minimum of two distances, intersection the maximum, and a distance in pixels gives smooth edges without sampling.

Only + − × ÷, square root, comparison and rounding are used, each of which IEEE 754 defines to the last bit. sin and
exp differ between machines, a sum of many numbers depends on the order, and so none of them occurs here. Random
numbers are PCG64's raw output, which NumPy keeps the same in every version.

Points (x, y) of a thing lie within about the unit circle, y upwards; arrays are float64 of shape (N, 32, 32).
"""

import numpy as np

SIDE = 32  # pixels of a picture
CHUNK = 100  # pictures drawn at once: their arrays stay in the processor's cache
FAR = np.float64(9.0)  # the distance of what is not there

Point = tuple[float, float]


def disc(x, y, centre: Point, radius):
    """Distance to a disc."""
    dx, dy = x - centre[0], y - centre[1]
    return np.sqrt(dx * dx + dy * dy) - radius


def ellipse(x, y, centre: Point, width: float, height: float):
    """Roughly the distance to an ellipse with these half axes."""
    dx, dy = (x - centre[0]) / width, (y - centre[1]) / height
    return (np.sqrt(dx * dx + dy * dy) - 1) * min(width, height)


def box(x, y, left, right, bottom, top):
    """Distance to a rectangle with sides along the axes."""
    dx = np.abs(x - (left + right) / 2) - (right - left) / 2
    dy = np.abs(y - (bottom + top) / 2) - (top - bottom) / 2
    ox, oy = np.maximum(dx, 0), np.maximum(dy, 0)
    return np.sqrt(ox * ox + oy * oy) + np.minimum(np.maximum(dx, dy), 0)


def polygon(x, y, *corners: Point):
    """Distance to a polygon: the nearest of its edges, negative where a ray to the left crosses an odd number."""
    nearest, inside = np.inf, False
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
        dx, dy = px - along * ex, py - along * ey
        nearest = np.minimum(nearest, dx * dx + dy * dy)
        crosses = ((ay <= y) != (by <= y)) & ((ex * py > ey * px) == (ey > 0))
        inside = inside ^ crosses
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance)


def union(*distances):
    """What is in any of them."""
    return np.minimum(distances[0], union(*distances[1:]) if len(distances) > 1 else FAR)


# The things. Each gets points and a number v in 0 … 1 for each picture, which varies the form, and returns two
# distances: to the thing, and to the part of it that has a second colour (`FAR + x`: there is none).


def arrow(x, y, v):
    thick, wide = 0.17 + 0.1 * v, 0.52 + 0.2 * v
    head = polygon(x, y, (0.0, -wide), (0.95, 0.0), (0.0, wide))
    return union(head, box(x, y, -0.95, 0.05, -thick, thick)), x


def cup(x, y, v):
    opening = ellipse(x, y, (-0.15, 0.6), 0.62, 0.2)
    wall = polygon(x, y, (-0.77, 0.6), (0.47, 0.6), (0.37 - 0.2 * v, -0.75), (-0.67 + 0.2 * v, -0.75))
    handle = np.abs(disc(x, y, (0.48, 0.05), 0.34)) - 0.1
    return union(opening, wall, handle), opening + 0.08


def fish(x, y, v):
    tail = polygon(x, y, (-0.3, 0.0), (-0.95, 0.5), (-0.78, 0.0), (-0.95, -0.5))
    fin = polygon(x, y, (-0.1, 0.3), (0.0, 0.72), (0.4, 0.3))
    body = ellipse(x, y, (0.22, 0.0), 0.72, 0.46)
    return union(body, tail, fin), union(disc(x, y, (0.58, 0.1), 0.12), x + 0.38 - 0.1 * v)


def heart(x, y, v):
    right = np.abs(x)
    lobe = disc(right, y, (0.42, 0.28), 0.46)
    tip = polygon(x, y, (0.0, -0.9), (0.83, 0.07), (0.42, 0.28), (0.0, 0.4), (-0.42, 0.28), (-0.83, 0.07))
    return union(lobe, tip), FAR + x


def house(x, y, v):
    roof = polygon(x, y, (-0.95, 0.05), (0.0, 0.8 + 0.15 * v), (0.95, 0.05))
    chimney = box(x, y, 0.4, 0.62, 0.2, 0.85)
    door = box(x, y, -0.15, 0.15, -0.8, -0.3)
    return union(roof, chimney, box(x, y, -0.68, 0.68, -0.8, 0.1)), union(roof, door)


def key(x, y, v):
    bow = np.abs(disc(x, y, (-0.52, 0.0), 0.3)) - 0.14
    teeth = union(box(x, y, 0.42, 0.58, -0.42 - 0.1 * v, 0.0), box(x, y, 0.78, 0.95, -0.5 + 0.1 * v, 0.0))
    return union(bow, teeth, box(x, y, -0.15, 0.95, -0.1, 0.1)), FAR + x


def moon(x, y, v):
    bite = disc(x, y, (0.42 + 0.15 * v, 0.12), 0.72)
    craters = union(disc(x, y, (-0.6, 0.15), 0.13), disc(x, y, (-0.45, -0.42), 0.16))
    return np.maximum(disc(x, y, (0.0, 0.0), 0.92), -bite), craters


def mushroom(x, y, v):
    cap = np.maximum(ellipse(x, y, (0.0, -0.05), 0.95, 0.9), -0.05 - y)
    stem = box(x, y, -0.2 - 0.1 * v, 0.2 + 0.1 * v, -0.9, 0.0)
    dots = union(disc(x, y, (-0.4, 0.3), 0.15), disc(x, y, (0.1, 0.52), 0.15), disc(x, y, (0.5, 0.2), 0.14))
    return union(cap, stem), union(dots, y + 0.05)


def star(x, y, v):
    inner = 0.38 + 0.1 * v
    far = [(0.0, 0.95), (0.904, 0.294), (0.558, -0.769), (-0.558, -0.769), (-0.904, 0.294)]
    near = [(0.588, 0.809), (0.951, -0.309), (0.0, -1.0), (-0.951, -0.309), (-0.588, 0.809)]
    corners = [point for a, (bx, by) in zip(far, near, strict=True) for point in (a, (inner * bx, inner * by))]
    return polygon(x, y, *corners), FAR + x


def tree(x, y, v):
    wide = 0.65 + 0.15 * v
    top = polygon(x, y, (-0.5, 0.3), (0.0, 0.95), (0.5, 0.3))
    middle = polygon(x, y, (-0.1 - 0.6 * wide, -0.15), (0.0, 0.6), (0.1 + 0.6 * wide, -0.15))
    bottom = polygon(x, y, (-wide, -0.6), (0.0, 0.2), (wide, -0.6))
    return union(top, middle, bottom, box(x, y, -0.13, 0.13, -0.95, -0.5)), y + 0.6


def boat(x, y, v):
    hull = polygon(x, y, (-0.95, -0.3), (0.95, -0.3), (0.6, -0.8), (-0.65, -0.8))
    sail = polygon(x, y, (0.06, -0.15), (0.06, 0.95), (0.75 + 0.15 * v, -0.15))
    jib = polygon(x, y, (-0.08, -0.15), (-0.08, 0.7), (-0.75 + 0.15 * v, -0.15))
    return union(hull, sail, jib, box(x, y, -0.06, 0.06, -0.4, 0.95)), -0.22 - y


def bolt(x, y, v):
    shift = 0.2 * v
    corners = [(0.2, 0.95), (-0.6, -0.1), (-0.1, -0.1), (-0.3 - shift, -0.95), (0.6, 0.22), (0.12, 0.22)]
    return polygon(x, y, *corners, (0.45 + shift, 0.95)), FAR + x


def bottle(x, y, v):
    half = 0.32 + 0.12 * v
    body = union(box(x, y, -half, half, -0.92, 0.1), ellipse(x, y, (0.0, 0.1), 0.36, 0.36))
    neck = box(x, y, -0.14, 0.14, 0.1, 0.92)
    return union(body, neck), union(np.abs(y + 0.4) - 0.24, 0.72 - y)


def cloud(x, y, v):
    puffs = union(disc(x, y, (-0.5, -0.12), 0.4), disc(x, y, (-0.02, 0.16), 0.46 + 0.1 * v))
    return union(puffs, disc(x, y, (0.52, -0.1), 0.38), box(x, y, -0.5, 0.5, -0.5, -0.1)), FAR + x


def cross(x, y, v):
    half = 0.2 + 0.12 * v
    return union(box(x, y, -0.9, 0.9, -half, half), box(x, y, -half, half, -0.9, 0.9)), FAR + x


def drop(x, y, v):
    tip = polygon(x, y, (0.0, 0.95), (-0.5, -0.08), (0.0, -0.3), (0.5, -0.08))
    return union(disc(x, y, (0.0, -0.35), 0.57), tip), FAR + x


def flower(x, y, v):
    right, ring = np.abs(x), 0.34 + 0.06 * v
    top = union(disc(x, y, (0.0, 0.58), ring), disc(right, y, (0.552, 0.179), ring))
    middle = disc(x, y, (0.0, 0.0), 0.3)
    return union(top, middle, disc(right, y, (0.341, -0.469), ring)), middle


def hammer(x, y, v):
    head = polygon(x, y, (-0.75, 0.85), (0.4, 0.85), (0.8, 0.45 - 0.2 * v), (0.4, 0.35), (-0.75, 0.35))
    return union(head, box(x, y, -0.2, 0.08, -0.95, 0.4)), y - 0.35


def ring(x, y, v):
    return np.abs(disc(x, y, (0.0, 0.0), 0.66)) - 0.16 - 0.1 * v, FAR + x


def umbrella(x, y, v):
    canopy = np.maximum(disc(x, y, (0.0, -0.02), 0.92), 0.02 - y)
    scallops = union(disc(np.abs(x), y, (0.62, 0.0), 0.27), disc(x, y, (0.0, 0.0), 0.3))
    hook = np.maximum(np.abs(disc(x, y, (0.17, -0.72), 0.17)) - 0.07, y + 0.72)
    return union(np.maximum(canopy, -scallops), hook, box(x, y, -0.07, 0.07, -0.72, 0.85)), y


THINGS = [arrow, cup, fish, heart, house, key, moon, mushroom, star, tree]
THINGS += [boat, bolt, bottle, cloud, cross, drop, flower, hammer, ring, umbrella]
NAMES = [thing.__name__ for thing in THINGS]


class Random:
    """Uniform random numbers, one a picture or one a point, from PCG64's raw 64 bits."""

    def __init__(self, *seeds: int):
        self.bits = np.random.PCG64(np.random.SeedSequence(seeds))

    def __call__(self, count: int, low=0.0, high=1.0, shape: tuple[int, ...] = (1, 1)):
        """Numbers from low to high, (count, *shape)."""
        raw = self.bits.random_raw((count, *shape)) >> np.uint64(11)
        return low + (high - low) * (raw * 2.0**-53)


def paint(name: str, count: int, *seeds: int) -> np.ndarray:
    """`count` pictures of the thing called `name`, uint8 (count, 3, 32, 32). The seeds and the name fix every bit."""
    random, thing = Random(*seeds, NAMES.index(name)), THINGS[NAMES.index(name)]
    chunks = [scene(thing, min(CHUNK, count - done), random) for done in range(0, count, CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros((0, 3, SIDE, SIDE), np.uint8)


def scene(thing, count: int, random: Random) -> np.ndarray:
    """Draw a chunk of pictures from back to front: ground, clutter, shadow, thing, something in front, light."""
    steps = (np.arange(SIDE) + 0.5) / (SIDE / 2) - 1
    right, up = np.broadcast_arrays(steps[None, None, :], -steps[None, :, None])  # each (1, 32, 32), from −1 to 1

    level = random(count, 0.18, 0.82)  # brightness of the ground
    step = random(count, 0.27, 0.5)  # how much brighter or darker the thing is
    brighter = (level < 0.4) | ((level < 0.6) & (random(count) < 0.5))
    other = level + random(count, -0.15, 0.15)
    ground = texture(right, up, colour(random, level, 0.45), colour(random, other, 0.45), random)
    for _ in range(3):
        edge = bar(right, up, random(count, -1, 1), random(count, -1, 1), random(count, 0.0, 0.5), random)
        ground = mix(ground, colour(random, level + random(count, -0.2, 0.2), 0.45), coverage(edge))

    cos, sin = turn(random(count, -0.3, 0.3))  # about ± 33°
    size, flip = random(count, 0.58, 0.88), np.where(random(count) < 0.5, -1.0, 1.0)
    room = 1.02 - size
    px, py = right - room * random(count, -1, 1), up - room * random(count, -1, 1)
    x = (cos * px + sin * py) / size * flip * random(count, 0.9, 1.15)
    y = (cos * py - sin * px) / size * random(count, 0.9, 1.15)
    edge, part = thing(x, y, random(count))
    edge, part = edge * size * (SIDE / 2), part * size * (SIDE / 2)  # in pixels

    light_x, light_y = turn(random(count, -1, 1))  # from the right half of the sky …
    light_x, light_y = light_y, light_x  # … turned to its upper half
    ground = ground * (1 - random(count, 0.2, 0.65) * shadow(edge, light_x, light_y, random))[:, None]
    first, second = np.where(brighter, level + step, level - step), random(count, -0.16, 0.16)
    second = colour(random, np.where(brighter, level + 0.9 * step, level - 0.9 * step) + second)
    skin = texture(x, y, colour(random, first), colour(random, first + random(count, -0.2, 0.2)), random)
    skin = mix(skin, second, coverage(part))
    picture = mix(ground, relief(skin, edge, light_x, light_y, random), coverage(edge))

    # Something in front, in a third of the pictures, crossing the thing off its middle.
    side_x, side_y = turn(random(count, -1, 1))
    away = np.where(random(count) < 0.33, random(count, 0.55, 0.85), FAR) * np.where(random(count) < 0.5, -1, 1)
    edge = bar(px, py, away * size * side_x, away * size * side_y, random(count, 0.1, 0.7), random)
    cover = texture(right, up, *(colour(random, random(count, 0.15, 0.85), 0.45) for _ in range(2)), random)
    picture = mix(picture * (1 - 0.4 * coverage(edge, 3.0)[:, None]), cover, coverage(edge))

    cast = random(count, 0.9, 1.1, (3, 1, 1)) * random(count, 0.85, 1.15, (1, 1, 1))  # colour and strength of the lamp
    slope = 1 + random(count, -0.2, 0.2) * right + random(count, -0.2, 0.2) * up  # nearer to the lamp on one side
    grain = random(count, -0.03, 0.03, (1, SIDE, SIDE))
    picture = np.clip(picture * cast * slope[:, None] + grain, 0, 1)
    return np.floor(picture * 255 + 0.5).astype(np.uint8)


def turn(t):
    """A point (cos, sin) of the unit circle without a sine: t = −1 … 1 runs through the right half of it."""
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def colour(random: Random, brightness, strongest: float = 0.75) -> np.ndarray:
    """A random colour (N, 3, 1, 1) of this brightness, (N, 1, 1), nearly grey or up to the strongest."""
    count = len(brightness)
    hue = 6 * random(count)
    rgb = np.stack([np.abs(hue - 3) - 1, 2 - np.abs(hue - 2), 2 - np.abs(hue - 4)], axis=1)
    rgb = np.clip(rgb, 0, 1)
    grey = 0.3 * rgb[:, :1] + 0.59 * rgb[:, 1:2] + 0.11 * rgb[:, 2:]
    return np.clip(brightness[:, None] + random(count, 0.15, strongest, (1, 1, 1)) * (rgb - grey), 0, 1)


def coverage(edge, soft=1.0):
    """How much of a pixel is inside, 0 … 1, from the distance in pixels; `soft` is the width of the edge."""
    return np.clip(0.5 - edge / soft, 0, 1)


def mix(under, over, share):
    """Colours (N, 3, …) with `share` (N, 32, 32) of them covered by other colours."""
    return under + (over - under) * share[:, None]


def texture(x, y, first, second, random: Random) -> np.ndarray:
    """Paint the plane (N, 3, 32, 32) with two colours: shaded, striped, dotted or cloudy, a picture each its own."""
    count = len(first)
    cos, sin = turn(random(count, -1, 1))
    along, across = x * cos + y * sin, y * cos - x * sin
    waves = random(count, 1.5, 3.0)
    a, b = along * waves + random(count), across * waves + random(count)
    a, b = 2 * np.abs(a - np.floor(a + 0.5)), 2 * np.abs(b - np.floor(b + 0.5))  # triangle waves, 0 … 1
    stripes = np.clip(3 * a - 1, 0, 1)
    dots = np.clip(3 * (0.7 - np.sqrt(a * a + b * b)), 0, 1)
    kind = np.floor(4 * random(count))
    share = np.where(kind == 0, stripes, np.where(kind == 1, dots, np.where(kind == 2, clouds(count, random), 0)))
    share = np.where(kind == 3, np.clip(0.5 + 0.5 * along, 0, 1), share)
    return mix(first, second, share)


def clouds(count: int, random: Random):
    """Smooth random spots (N, 32, 32), 0 … 1: random numbers at 6 × 6 points and an S-curve between them."""
    nodes = random(count, shape=(6, 6))
    place = np.arange(SIDE) * (5 / SIDE)
    cell = np.floor(place).astype(int)
    share = place - cell
    share = share * share * (3 - 2 * share)
    rows = nodes[:, cell] + (nodes[:, cell + 1] - nodes[:, cell]) * share[None, :, None]  # (N, 32, 6)
    return rows[:, :, cell] + (rows[:, :, cell + 1] - rows[:, :, cell]) * share


def bar(x, y, centre_x, centre_y, length, random: Random):
    """Distance in pixels to a rounded bar, or a disc where length is 0."""
    count = len(length)
    cos, sin = turn(random(count, -1, 1))
    dx, dy = x - centre_x, y - centre_y
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    beyond = along - np.clip(along, -length, length)
    return (np.sqrt(beyond * beyond + across * across) - random(count, 0.08, 0.25)) * (SIDE / 2)


def shadow(edge, light_x, light_y, random: Random):
    """What the thing shades of the ground: itself, moved away from the light by whole pixels and blurred."""
    count = len(edge)
    far = random(count, 1.0, 4.0)
    down = np.floor(far * light_y + 0.5).astype(int)
    left = np.floor(far * light_x + 0.5).astype(int)
    index = np.arange(SIDE)
    rows = np.clip(index[None, :, None] - down, 0, SIDE - 1)
    columns = np.clip(index[None, None, :] + left, 0, SIDE - 1)
    return coverage(edge[np.arange(count)[:, None, None], rows, columns], 4.0)


def relief(skin, edge, light_x, light_y, random: Random) -> np.ndarray:
    """Light a thing as if its rim were rounded: a quarter circle as high as `rim` pixels, then flat."""
    rim = random(len(edge), 2.5, 6.0)
    short = 1 - np.clip(-edge / rim, 0, 1)
    height = np.pad(rim * np.sqrt(1 - short * short), ((0, 0), (1, 1), (1, 1)), mode="edge")
    slope_x = (height[:, 1:-1, 2:] - height[:, 1:-1, :-2]) / 2
    slope_y = (height[:, :-2, 1:-1] - height[:, 2:, 1:-1]) / 2
    # The light comes at 45° to the picture: facing is 1 where the surface looks straight at it.
    facing = (1 - slope_x * light_x - slope_y * light_y) / np.sqrt(2 * (1 + slope_x * slope_x + slope_y * slope_y))
    facing = np.maximum(facing, 0)
    shine = facing * facing * facing * facing
    shine = shine * shine * random(len(edge), 0.0, 0.5)
    return skin * (0.45 + 0.75 * facing)[:, None] + shine[:, None] * 0.5
