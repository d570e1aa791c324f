//! The picture: text and rectangles on a white canvas.

pub mod canvas;
pub mod colour_map;
pub mod figure;
pub mod font;
pub mod maps;
