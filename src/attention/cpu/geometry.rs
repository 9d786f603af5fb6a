//! How a map is cut into work: bands, tiles, batches, pairs of queries, and the places that their windows reach.

use std::ops::Range;

use crate::attention::problem::Problem;
use crate::attention::window::Class;

/// Tiles or bands a thread, at least, so that all threads end together.
const TASKS_PER_THREAD: usize = 4;
/// Rows of queries in a tile or band, at most: the scratch of 32 channels then takes a quarter of a megabyte.
const ROWS: usize = 64;
/// Pairs of queries that go through scores, softmax and outputs together.
pub(super) const BATCH: usize = 8;
/// f32 values of a cache line.
pub(super) const LINE: usize = 16;

/// The K that kernels are compiled for, beside [`ANY`]: that of every published network.
pub(super) const USUAL: usize = 7;
/// What stands for a K that is known when running alone.
pub(super) const ANY: usize = 0;

/// K, and the sizes that follow from it: constants of the program where `K` is not [`ANY`].
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelSize<const K: usize> {
    kernel_size: usize,
    row_lanes: usize,
    pitch: usize,
}

impl<const K: usize> KernelSize<K> {
    /// Those of `kernel_size`, which is `K` unless that is [`ANY`].
    #[inline(always)]
    pub(super) fn new(kernel_size: usize) -> Self {
        assert!(K == ANY || K == kernel_size);
        Self::of(kernel_size)
    }

    #[inline(always)]
    const fn of(kernel_size: usize) -> Self {
        let row_lanes = kernel_size.next_multiple_of(8);
        Self { kernel_size, row_lanes, pitch: (row_lanes + 8).next_multiple_of(LINE) }
    }

    /// What is kept, or what the compiler knows.
    #[inline(always)]
    fn known(self) -> Self {
        if K == ANY { self } else { const { Self::of(K) } }
    }

    /// K.
    #[inline(always)]
    pub(super) fn get(self) -> usize {
        self.known().kernel_size
    }

    /// Lanes that a row of a window takes, in vectors of eight.
    #[inline(always)]
    pub(super) fn row_lanes(self) -> usize {
        self.known().row_lanes
    }

    /// Columns of keys that a tile holds, in whole cache lines.
    #[inline(always)]
    pub(super) fn pitch(self) -> usize {
        self.known().pitch
    }

    /// Scores of a query, [row][lane].
    #[inline(always)]
    pub(super) fn lanes(self) -> usize {
        self.get() * self.row_lanes()
    }

    /// How far apart the windows of a pair may start.
    #[inline(always)]
    pub(super) fn slack(self) -> usize {
        (self.row_lanes() - self.get()).min(1)
    }
}

/// A rectangle of queries of one dilation class.
pub(super) struct QueryTile {
    pub(super) rows: Class,
    pub(super) columns: Class,
    pub(super) y: Range<usize>,
    pub(super) x: Range<usize>,
}

/// One query: its place in the tile's class, and where its window starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) y: usize,
    pub(super) x: usize,
    pub(super) window_y: usize,
    pub(super) window_x: usize,
}

impl QueryTile {
    #[inline(always)]
    fn query(&self, y: usize, x: usize) -> Query {
        Query { y, x, window_y: self.rows.start(y), window_x: self.columns.start(x) }
    }

    /// The first query.
    #[inline(always)]
    pub(super) fn first(&self) -> Query {
        self.query(self.y.start, self.x.start)
    }

    /// The query after `query`, row by row.
    #[inline(always)]
    fn after(&self, query: Query) -> Option<Query> {
        if query.x + 1 < self.x.end {
            Some(self.query(query.y, query.x + 1))
        } else if query.y + 1 < self.y.end {
            Some(self.query(query.y + 1, self.x.start))
        } else {
            None
        }
    }

    /// `first` and the query after it if their windows lie in the same rows and start at most `slack`
    /// apart, else `first` twice; the leftmost window first. And the query after them.
    #[inline(always)]
    fn pair(&self, first: Query, slack: usize) -> ([Query; 2], Option<Query>) {
        match self.after(first) {
            Some(second)
                if second.window_y == first.window_y && second.window_x.abs_diff(first.window_x) <= slack =>
            {
                let pair = if first.window_x <= second.window_x { [first, second] } else { [second, first] };
                (pair, self.after(second))
            }
            next => ([first; 2], next),
        }
    }

    /// Takes up to [`BATCH`] pairs with windows in the same rows, from `next` on, and returns how many.
    #[inline(always)]
    pub(super) fn batch(
        &self,
        next: &mut Option<Query>,
        slack: usize,
        pairs: &mut [[Query; 2]; BATCH],
    ) -> usize {
        let (mut count, mut window_y) = (0, None);
        while let Some(first) = *next
            && *window_y.get_or_insert(first.window_y) == first.window_y
            && count < BATCH
        {
            (pairs[count], *next) = self.pair(first, slack);
            count += 1;
        }
        count
    }
}

/// Rows of queries of one dilation class.
pub(super) struct Band {
    pub(super) rows: Class,
    pub(super) columns: Class,
    pub(super) y: Range<usize>,
}

impl Band {
    /// The queries at the columns `x`.
    pub(super) fn tile(&self, x: Range<usize>) -> QueryTile {
        QueryTile { rows: self.rows, columns: self.columns, y: self.y.clone(), x }
    }

    /// The rows of pixels that are reached and not the band's own.
    pub(super) fn others(&self, kernel_size: usize) -> impl Iterator<Item = usize> + use<> {
        let (reach, own, size) = (reach(self.rows, &self.y, kernel_size), self.y.clone(), self.rows.size());
        reach.take_while(move |&row| row < size).filter(move |row| !own.contains(row))
    }
}

/// Cuts a map into tiles, every query in one of them: enough for all threads.
pub(super) fn tiles(problem: &Problem, threads: usize) -> Vec<QueryTile> {
    let &Problem { batch, height, width, heads, kernel_size, dilation, .. } = problem;
    let strips: Vec<(Class, Range<usize>)> = Class::all(width, kernel_size, dilation)
        .flat_map(|class| strips(class, kernel_size).map(move |x| (class, x)))
        .collect();
    let wanted = wanted(threads, batch * heads * dilation.min(height) * strips.len());
    let mut tiles = Vec::new();
    for rows in Class::all(height, kernel_size, dilation) {
        // With fewer rows than half a window a tile would copy more than it computes.
        let most = rows.size().div_ceil(kernel_size.div_ceil(2));
        for y in even_parts(rows.size(), wanted.min(most).max(rows.size().div_ceil(ROWS))) {
            let tile = |&(columns, ref x): &(Class, Range<usize>)| QueryTile {
                rows,
                columns,
                y: y.clone(),
                x: x.clone(),
            };
            tiles.extend(strips.iter().map(tile));
        }
    }
    tiles
}

/// Cuts a map into bands, every query in one of them: enough for all threads, and with more rows than a band
/// shares with its neighbours.
pub(super) fn bands(problem: &Problem, threads: usize) -> Vec<Band> {
    let &Problem { batch, height, width, heads, kernel_size, dilation, .. } = problem;
    let wanted = wanted(threads, batch * heads * dilation.min(height) * dilation.min(width));
    let mut bands = Vec::new();
    for rows in Class::all(height, kernel_size, dilation) {
        for columns in Class::all(width, kernel_size, dilation) {
            let most = rows.size().div_ceil(2 * kernel_size);
            let parts = even_parts(rows.size(), wanted.min(most).max(rows.size().div_ceil(ROWS)));
            bands.extend(parts.map(|y| Band { rows, columns, y }));
        }
    }
    bands
}

/// Parts that rows are cut into where there are `others` beside them to work on.
fn wanted(threads: usize, others: usize) -> usize {
    let tasks = if threads == 1 { 1 } else { threads * TASKS_PER_THREAD };
    tasks.div_ceil(others.max(1))
}

/// Cuts the columns of a class into ranges, even but for the last, whose keys fit into the
/// [pitch](KernelSize::pitch).
pub(super) fn strips(class: Class, kernel_size: usize) -> impl Iterator<Item = Range<usize>> {
    let size = KernelSize::<ANY>::new(kernel_size);
    let reach = size.pitch() - size.row_lanes();
    let mut end = 0;
    std::iter::from_fn(move || {
        let start = end;
        while end < class.size() && class.start(end) <= class.start(start) + reach {
            end = (end + 2).min(class.size());
        }
        (start < end).then_some(start..end)
    })
}

/// The places that the windows of the queries at `places` of `class` reach.
#[inline]
pub(super) fn reach(class: Class, places: &Range<usize>, kernel_size: usize) -> Range<usize> {
    class.start(places.start)..class.start(places.end - 1) + kernel_size
}

/// The same of rows, of which one stands for all that are padded.
#[inline]
pub(super) fn reach_rows(class: Class, places: &Range<usize>, kernel_size: usize) -> Range<usize> {
    let Range { start, end } = reach(class, places, kernel_size);
    start..end.min(class.size() + 1)
}

/// 0..n in `parts` ranges whose lengths differ by at most one.
#[inline(always)]
pub(super) fn even_parts(n: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |i| i * n / parts..(i + 1) * n / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tiles and bands of these maps: height, width, kernel size, dilation.
    const MAPS: [(usize, usize, usize, usize); 10] = [
        (7, 7, 7, 1),
        (56, 56, 7, 1),
        (150, 61, 7, 1),
        (57, 61, 7, 8),
        (26, 40, 13, 2),
        (14, 14, 14, 1),
        (8, 9, 1, 3),
        (5, 40, 7, 2),
        (3, 9, 7, 4096),
        (100, 30, 201, 1),
    ];

    #[test]
    fn tiles_and_bands_hold_every_query_once() {
        for (height, width, kernel_size, dilation) in MAPS {
            for (batch, heads, threads) in [(1, 1, 1), (1, 2, 2), (1, 16, 2), (1, 1, 64), (3, 4, 16)] {
                let (dim, bias_side) = (8, 2 * kernel_size - 1);
                let problem = Problem { batch, height, width, heads, dim, kernel_size, dilation, bias_side };
                let banded: Vec<QueryTile> =
                    bands(&problem, threads).iter().map(|band| band.tile(0..band.columns.size())).collect();
                for (what, tiles) in [("tiles", tiles(&problem, threads)), ("bands", banded)] {
                    let mut seen = vec![0; height * width];
                    for tile in tiles {
                        assert!(tile.y.len() <= ROWS);
                        for y in tile.y.clone() {
                            for x in tile.x.clone() {
                                seen[tile.rows.position(y) * width + tile.columns.position(x)] += 1;
                            }
                        }
                    }
                    assert!(seen.iter().all(|&n| n == 1), "{what} of {problem:?}, {threads} threads");
                }
            }
        }
    }

    #[test]
    fn pairs_hold_every_query_once_and_their_windows_lie_in_the_lanes_of_a_row() {
        for (height, width, kernel_size, dilation) in MAPS {
            let (dim, bias_side) = (8, 2 * kernel_size - 1);
            let problem =
                Problem { batch: 1, height, width, heads: 1, dim, kernel_size, dilation, bias_side };
            let size = KernelSize::<ANY>::new(kernel_size);
            for tile in tiles(&problem, 1) {
                let columns = reach(tile.columns, &tile.x, kernel_size);
                let mut pairs = [[Query::default(); 2]; BATCH];
                let mut seen = Vec::new();
                let mut next = Some(tile.first());
                while next.is_some() {
                    let count = tile.batch(&mut next, size.slack(), &mut pairs);
                    assert!(count > 0);
                    for [first, second] in &pairs[..count] {
                        assert_eq!(first.window_y, pairs[0][0].window_y, "{problem:?}");
                        let end = second.window_x - first.window_x + kernel_size;
                        assert!(second.window_x >= first.window_x && end <= size.row_lanes(), "{problem:?}");
                        let column = first.window_x - columns.start;
                        assert!(column + size.row_lanes() <= size.pitch(), "{problem:?}");
                        seen.push((first.y, first.x));
                        seen.extend((first != second).then_some((second.y, second.x)));
                    }
                }
                seen.sort_unstable();
                let all: Vec<_> = tile.y.clone().flat_map(|y| tile.x.clone().map(move |x| (y, x))).collect();
                assert_eq!(seen, all, "{problem:?}");
            }
        }
    }

    #[test]
    fn sizes_known_when_compiling_are_those_known_when_running() {
        let (usual, any) = (KernelSize::<USUAL>::new(USUAL), KernelSize::<ANY>::new(USUAL));
        assert_eq!((usual.get(), usual.row_lanes(), usual.pitch()), (7, 8, 16));
        assert_eq!((any.get(), any.row_lanes(), any.pitch()), (7, 8, 16));
        assert_eq!((usual.lanes(), usual.slack()), (56, 1));
        // Windows as wide as their lanes leave no room for a second one beside.
        assert_eq!((KernelSize::<ANY>::new(8).slack(), KernelSize::<ANY>::new(13).slack()), (0, 1));
    }
}
