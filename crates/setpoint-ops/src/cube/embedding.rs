//! The gradient of an embedding: rows added to those rows of a table that their ids name.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{UNITS, cubes, element, in_order, owned, sum_of_cube};

/// A cube for each row. That of the first row with an id adds all rows with it, in their order.
#[cube(launch)]
fn add_rows_kernel<I: Int>(
    table: &mut [f32],
    ids: &[I],
    rows: &[f32],
    width: usize,
    #[comptime] units: usize,
    #[define(I)] _element: ElemType,
) {
    let own = CUBE_POS;
    if own >= ids.len() {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(units);
    let id = ids[own];
    let mut earlier = 0.0f32;
    let mut i = unit;
    while i < own {
        if ids[i] == id {
            earlier = 1.0f32;
        }
        i += units;
    }
    let is_first = sum_of_cube(earlier, &mut shared, units) == 0.0f32;
    if is_first {
        let start = usize::cast_from(id) * width;
        for row in own..ids.len() {
            if ids[row] == id {
                let mut column = unit;
                while column < width {
                    table[start + column] += rows[row * width + column];
                    column += units;
                }
            }
        }
    }
}

/// Answers the table with the rows added, in place where nobody else holds it.
pub(super) fn add_rows(table: CubeTensor, ids: CubeTensor, rows: CubeTensor) -> CubeTensor {
    let (table, ids, rows) = (owned(table), in_order(ids), in_order(rows));
    let (client, element) = (table.client.clone(), element(&ids));
    let [count, width] = rows.shape().dims();
    add_rows_kernel::launch(
        &client,
        cubes(&client, count),
        CubeDim::new_1d(UNITS as u32),
        table.clone().into_buffer_arg(),
        ids.into_buffer_arg(),
        rows.into_buffer_arg(),
        width,
        UNITS,
        element,
    );
    table
}
