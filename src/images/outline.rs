//! Masks as polygons, as annotations of images have them.
//!
//! A mask has an outline for each of its parts, which are connected by sides. A hole is part of the outline: a bridge leads to it
//! through the mask and the same way back, so that one line around everything keeps what polygons otherwise lose. Where the
//! two ways of a bridge lie on each other no reader sees them.
//!
//! The same outline comes in two forms, because readers fill polygons in two ways: see [`Outline::edges`] and
//! [`Outline::pixels`].

use std::collections::BTreeMap;
use std::ops::Range;

use super::mask::Mask;

/// The line around a part of a mask, its inside on the right of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline(Vec<Corner>);

/// Where the line turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Corner {
    /// The corner itself, between pixels: that of pixel (x, y) towards the picture's origin.
    at: [usize; 2],
    /// The mask's pixel along both sides of the corner.
    pixel: [usize; 2],
    /// Whether three of the pixels around it are the mask's, on an outline without a bridge there.
    inward: bool,
}

/// The ways along a pixel's sides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heading {
    Right,
    Down,
    Left,
    Up,
}

impl Heading {
    const ALL: [Self; 4] = [Self::Right, Self::Down, Self::Left, Self::Up];

    /// A quarter turn to the right, or three.
    fn turned(self, quarters: usize) -> Self {
        Self::ALL[(self as usize + quarters) % 4]
    }

    fn step(self, [x, y]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Right => [x + 1, y],
            Self::Down => [x, y + 1],
            Self::Left => [x - 1, y],
            Self::Up => [x, y - 1],
        }
    }

    /// The pixels ahead of a corner, on the left and on the right of the way, as offsets of the corner.
    fn ahead(self) -> [[isize; 2]; 2] {
        match self {
            Self::Right => [[0, -1], [0, 0]],
            Self::Down => [[0, 0], [-1, 0]],
            Self::Left => [[-1, 0], [-1, -1]],
            Self::Up => [[-1, -1], [0, -1]],
        }
    }
}

/// The corners of all outlines: rings of nodes, of which bridges make fewer.
struct Rings {
    corners: Vec<Corner>,
    next: Vec<usize>,
    /// The node at which each way up begins, by the way's x and the y of that node.
    ways_up: BTreeMap<[usize; 2], usize>,
}

/// The outlines of a mask, in the pixels of its picture: one for each part, from the top down.
pub fn outlines(mask: &Mask) -> Vec<Outline> {
    let mut rings = Rings { corners: Vec::new(), next: Vec::new(), ways_up: BTreeMap::new() };
    let (mut parts, mut holes) = (Vec::new(), Vec::new());
    let [columns, rows] = mask.size;
    let mut seen = vec![false; mask.pixels.len()];
    for start in (0..rows).flat_map(|y| (0..columns).map(move |x| [x, y])) {
        // Each line has a way to the right somewhere, above a pixel.
        let at = start[1] * columns + start[0];
        let is_edge = mask.pixels[at] && (start[1] == 0 || !mask.pixels[at - columns]);
        if !is_edge || seen[at] {
            continue;
        }
        let line = follow(mask, start, &mut seen);
        let first = rings.corners.len();
        let is_hole = !is_clockwise(&line);
        rings.next.extend((1..line.len()).map(|i| first + i).chain([first]));
        rings.corners.extend(line);
        if is_hole {
            holes.push(first..rings.corners.len());
        } else {
            parts.push(first..rings.corners.len());
        }
    }
    // A bridge leads to the left, to an outline or to a hole that begins further on the left, which has its own bridge then.
    let leftmost = |hole: &Range<usize>, rings: &Rings| {
        hole.clone().filter(|node| rings.is_down(*node)).min_by_key(|node| rings.corners[*node].at)
    };
    let mut doors: Vec<_> =
        holes.into_iter().filter_map(|hole| Some((leftmost(&hole, &rings)?, hole))).collect();
    doors.sort_by_key(|(door, _)| rings.corners[*door].at);
    if !doors.is_empty() {
        parts.iter().cloned().flatten().for_each(|node| rings.index(node));
    }
    for (door, hole) in doors {
        rings.bridge(mask, door, hole);
    }
    let [left, top] = mask.origin;
    let moved = |[x, y]: [usize; 2]| [x + left, y + top];
    let outline = |Range { start: first, .. }: Range<usize>| {
        let mut ring = vec![first];
        let mut node = rings.next[first];
        while node != first {
            ring.push(node);
            node = rings.next[node];
        }
        let corner = |node: usize| {
            let Corner { at, pixel, inward } = rings.corners[node];
            Corner { at: moved(at), pixel: moved(pixel), inward }
        };
        Outline(ring.into_iter().map(corner).collect())
    };
    parts.into_iter().map(outline).collect()
}

/// The corners of the line that goes to the right above the pixel at `start`, and marks of all pixels above which it does.
fn follow(mask: &Mask, start: [usize; 2], seen: &mut [bool]) -> Vec<Corner> {
    let columns = mask.size[0];
    let (mut at, mut heading) = (start, Heading::Right);
    let mut line = Vec::new();
    loop {
        if heading == Heading::Right {
            seen[at[1] * columns + at[0]] = true;
        }
        at = heading.step(at);
        let [on_left, on_right] =
            heading.ahead().map(|[x, y]| mask.has([at[0] as isize + x, at[1] as isize + y]));
        let quarters = match (on_left, on_right) {
            // Also where another pixel meets this one at the corner alone: it is of another part, or is reached otherwise.
            (_, false) => 1,
            (false, true) => 0,
            (true, true) => 3,
        };
        if quarters > 0 {
            let after = heading.turned(quarters);
            let is = |way: Heading| heading == way || after == way;
            let pixel = [at[0] - usize::from(is(Heading::Down)), at[1] - usize::from(is(Heading::Left))];
            line.push(Corner { at, pixel, inward: quarters == 3 });
            heading = after;
        }
        if at == start && heading == Heading::Right {
            return line;
        }
    }
}

/// Whether a line goes around its inside, as on a clock; around a hole it goes the other way.
fn is_clockwise(line: &[Corner]) -> bool {
    let after = line.iter().cycle().skip(1);
    let area: i128 = line
        .iter()
        .zip(after)
        .map(|(a, b)| a.at[0] as i128 * b.at[1] as i128 - b.at[0] as i128 * a.at[1] as i128)
        .sum();
    area > 0
}

impl Rings {
    fn after(&self, node: usize) -> Corner {
        self.corners[self.next[node]]
    }

    fn is_down(&self, node: usize) -> bool {
        self.after(node).at[1] > self.corners[node].at[1]
    }

    /// Makes a way up known that begins at a node, if one does.
    fn index(&mut self, node: usize) {
        if self.after(node).at[1] < self.corners[node].at[1] {
            self.ways_up.insert(self.corners[node].at, node);
        }
    }

    fn add(&mut self, corner: Corner, next: usize) -> usize {
        self.corners.push(corner);
        self.next.push(next);
        self.corners.len() - 1
    }

    /// Makes a hole part of the line on its left: a bridge along a row of pixels leads to the hole's corner `door`, from which
    /// it goes down, and from there back.
    fn bridge(&mut self, mask: &Mask, door: usize, hole: Range<usize>) {
        let [x, y] = self.corners[door].at;
        let mut left = x;
        while mask.has([left as isize - 1, y as isize]) {
            left -= 1;
        }
        // The way up beside the row's first pixel: of those of this column that begin below, the next one.
        let wall = self.ways_up.range([left, y + 1]..[left + 1, 0]).next();
        let wall = *wall.expect("a row of a mask's pixels begins at an edge").1;
        let on_bridge = |x: usize, pixel: usize| Corner { at: [x, y], pixel: [pixel, y], inward: false };
        let last = if door == hole.start { hole.end - 1 } else { door - 1 };
        let beyond = self.next[wall];
        let back = self.add(on_bridge(left, left), beyond);
        let out = self.add(on_bridge(x, x - 1), back);
        self.corners[door].inward = false;
        let end = self.add(self.corners[door], out);
        self.next[last] = end;
        let arrive = self.add(on_bridge(x, x - 1), door);
        self.next[wall] = self.add(on_bridge(left, left), arrive);
        self.index(back);
        hole.for_each(|node| self.index(node));
        self.index(end);
    }
}

impl Outline {
    /// The polygon along the edges of pixels, in whole numbers: pixel (x, y) is the square from (x, y) to (x + 1, y + 1), and
    /// the polygon's area is the number of pixels. Filled by the rule that a pixel is in it if its centre is, as pycocotools
    /// does, it is the mask.
    pub fn edges(&self) -> Vec<[usize; 2]> {
        straightened(self.0.iter().map(|corner| corner.at).collect())
    }

    /// The polygon through the outermost pixels of the mask, in their numbers, at least three points. Filled with its line, as
    /// OpenCV and Pillow do, it is the mask. OpenCV's `findContours` gives such.
    pub fn pixels(&self) -> Vec<[usize; 2]> {
        let corners = &self.0;
        let is_near =
            |a: &Corner, b: &Corner| a.pixel[0].abs_diff(b.pixel[0]) + a.pixel[1].abs_diff(b.pixel[1]) == 1;
        let kept = |i: &usize| {
            // A pixel that a diagonal from the one before to the one after it has on its inside.
            let (before, corner, after) = (
                &corners[(i + corners.len() - 1) % corners.len()],
                &corners[*i],
                &corners[(i + 1) % corners.len()],
            );
            !(corner.inward
                && is_near(before, corner)
                && is_near(corner, after)
                && !before.inward
                && !after.inward)
        };
        let mut points = straightened((0..corners.len()).filter(kept).map(|i| corners[i].pixel).collect());
        while points.len() < 3 {
            points.push(points[0]);
        }
        points
    }
}

/// A closed line without points that change nothing: those that are there twice in a row, and those at which it goes straight on.
fn straightened(points: Vec<[usize; 2]>) -> Vec<[usize; 2]> {
    let offset = |[ax, ay]: [usize; 2], [bx, by]: [usize; 2]| [bx as i64 - ax as i64, by as i64 - ay as i64];
    let goes_on = |a: [usize; 2], b: [usize; 2], c: [usize; 2]| {
        let ([ax, ay], [bx, by]) = (offset(a, b), offset(b, c));
        ax * by == ay * bx && ax * bx + ay * by > 0
    };
    let mut kept: Vec<[usize; 2]> = Vec::with_capacity(points.len());
    for point in points {
        if kept.last() == Some(&point) {
            continue;
        }
        if let [.., a, b] = kept[..]
            && goes_on(a, b, point)
        {
            kept.pop();
        }
        kept.push(point);
    }
    // The same where the line closes.
    while let [first, .., last] = kept[..]
        && first == last
    {
        kept.pop();
    }
    while let [first, .., a, b] = kept[..]
        && goes_on(a, b, first)
    {
        kept.pop();
    }
    if let [first, second, .., last] = kept[..]
        && goes_on(last, first, second)
    {
        kept.remove(0);
    }
    kept
}

/// One line around several outlines, in the form of [`Outline::pixels`]: ways to the next part and back join them. Of formats in
/// which an object is one polygon; the ways are part of what their readers fill.
pub fn joined(outlines: &[Outline]) -> Vec<[usize; 2]> {
    // Of long lines some points: the way has to be short, not the shortest. Parts come from the top down: what is near came last.
    const TRIED: usize = 32;
    const NEAR: usize = 1024;
    let mut all: Vec<[usize; 2]> = Vec::new();
    for outline in outlines {
        let part = outline.pixels();
        if all.is_empty() {
            all = part;
            continue;
        }
        let tried = (0..part.len()).step_by(part.len().div_ceil(TRIED));
        let near = all.len().saturating_sub(NEAR)..all.len();
        let ways = tried.flat_map(|to| near.clone().map(move |from| [from, to]));
        let length = |[from, to]: [usize; 2]| {
            let [[ax, ay], [bx, by]] = [all[from], part[to]];
            ax.abs_diff(bx).pow(2) + ay.abs_diff(by).pow(2)
        };
        let Some([from, to]) = ways.min_by_key(|way| length(*way)) else { continue };
        let around = part[to..].iter().chain(&part[..=to]).copied();
        let way_back = [all[from]];
        all.splice(from + 1..from + 1, around.chain(way_back).collect::<Vec<_>>());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> Mask {
        let pixels = rows.iter().flat_map(|row| row.bytes().map(|byte| byte == b'#')).collect();
        Mask { origin: [0, 0], size: [rows[0].len(), rows.len()], pixels }
    }

    /// A polygon filled by the rule of centres.
    fn centres(polygons: &[Vec<[usize; 2]>], [width, height]: [usize; 2]) -> Vec<bool> {
        let mut on = vec![false; width * height];
        for polygon in polygons {
            for (i, a) in polygon.iter().enumerate() {
                let b = polygon[(i + 1) % polygon.len()];
                // All pixels on the right of a way up or down change sides.
                assert!(a[0] == b[0] || a[1] == b[1], "{polygon:?}");
                for y in a[1].min(b[1])..a[1].max(b[1]) {
                    (a[0]..width).for_each(|x| on[y * width + x] ^= true);
                }
            }
        }
        on
    }

    #[test]
    fn outlines_are_those_of_hand_drawn_masks() {
        for (rows, edges, pixels) in [
            (&["#"][..], vec![vec![[1, 0], [1, 1], [0, 1], [0, 0]]], vec![vec![[0, 0]; 3]]),
            (&["..", ".."], vec![], vec![]),
            (
                &["##", "##"],
                vec![vec![[2, 0], [2, 2], [0, 2], [0, 0]]],
                vec![vec![[1, 0], [1, 1], [0, 1], [0, 0]]],
            ),
            // Pixels that meet at a corner alone are two parts.
            (
                &["#.", ".#"],
                vec![vec![[1, 0], [1, 1], [0, 1], [0, 0]], vec![[2, 1], [2, 2], [1, 2], [1, 1]]],
                vec![vec![[0, 0]; 3], vec![[1, 1]; 3]],
            ),
            // A staircase is a diagonal of pixels.
            (
                &["#..", "##.", "###"],
                vec![vec![[1, 0], [1, 1], [2, 1], [2, 2], [3, 2], [3, 3], [0, 3], [0, 0]]],
                vec![vec![[0, 0], [2, 2], [0, 2]]],
            ),
            // A hole, with the bridge to it and back.
            (
                &["###", "#.#", "###"],
                vec![vec![[3, 0], [3, 3], [0, 3], [0, 1], [1, 1], [1, 2], [2, 2], [2, 1], [0, 1], [0, 0]]],
                vec![vec![[2, 0], [2, 2], [0, 2], [0, 0], [0, 2], [2, 2], [2, 0], [0, 0], [0, 1], [0, 0]]],
            ),
        ] {
            let found = outlines(&mask(rows));
            assert_eq!(found.iter().map(Outline::edges).collect::<Vec<_>>(), edges, "{rows:?}");
            assert_eq!(found.iter().map(Outline::pixels).collect::<Vec<_>>(), pixels, "{rows:?}");
        }
    }

    #[test]
    fn edges_enclose_the_mask_and_nothing_else() {
        let mut rng = fastrand::Rng::with_seed(3);
        for round in 0..2000 {
            let size = [rng.usize(1..14), rng.usize(1..14)];
            let density = [0.3, 0.5, 0.7, 0.9, 0.97][round % 5];
            let pixels: Vec<bool> = (0..size[0] * size[1]).map(|_| rng.f64() < density).collect();
            let mask = Mask { origin: [2, 1], size, pixels };
            let picture = [size[0] + 3, size[1] + 2];
            let found = outlines(&mask);
            let polygons: Vec<_> = found.iter().map(Outline::edges).collect();
            assert_eq!(centres(&polygons, picture), mask.whole(picture), "{mask:?} {polygons:?}");
            // The points of the other form are pixels of the mask, and the ways between them stay in it.
            for [x, y] in found.iter().flat_map(Outline::pixels) {
                assert!(mask.has([x as isize - 2, y as isize - 1]), "{mask:?}");
            }
        }
    }

    #[test]
    fn one_line_around_all_parts_has_the_points_of_all() {
        let found = outlines(&mask(&["##...#", "##...#", "......", "#....."]));
        let line = joined(&found);
        for part in &found {
            assert!(part.pixels().iter().all(|point| line.contains(point)));
        }
        assert_eq!(joined(&found[..1]), found[0].pixels());
        assert!(joined(&[]).is_empty());
    }
}
