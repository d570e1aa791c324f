//! The figure: a row for each stimulus with its prediction, and for each layer a strip of activation maps.

use image::RgbImage;

use super::canvas::{Area, BLACK, BLUE, Canvas, GREEN, GREY, LIGHT_GREY, RED};
use super::colour_map;
use super::font::{self, Style};
use super::maps::{self, Channel};
use crate::client::activations::Activations;

const MARGIN: u32 = 32;
/// Edge of a stimulus and of an activation map.
const IMAGE: u32 = 84;
const GAP: u32 = 6;
/// Between columns, and between the rows.
const COLUMN_GAP: u32 = 36;
const ROW_GAP: u32 = 18;
const PREDICTION_WIDTH: u32 = 172;
const BAR_HEIGHT: u32 = 10;
/// From the upper edge to the first row: heading, explanation, titles of the columns.
const HEAD: u32 = 156;
const TITLES: u32 = 104;
const SCALE_WIDTH: u32 = 160;
const MAPS_PER_LAYER: usize = 6;

/// What to draw.
#[derive(Clone, Debug)]
pub struct Figure<'a> {
    /// The title.
    pub heading: String,
    /// One for each stimulus.
    pub rows: Vec<Row<'a>>,
    /// One for each layer.
    pub columns: Vec<Column<'a>>,
}

/// A stimulus and its prediction.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The pixels.
    pub image: &'a RgbImage,
    /// Name of the most probable class.
    pub predicted: &'a str,
    /// Its probability, from 0 to 1.
    pub probability: f32,
    /// Whether the prediction is right, where that is known.
    pub right: Option<bool>,
}

/// A layer: its activations, a row's in the order of the rows, and the channels to show.
#[derive(Clone, Debug)]
pub struct Column<'a> {
    activations: &'a Activations,
    channels: Vec<Channel>,
}

impl<'a> Column<'a> {
    /// Shows the channels that vary most over the first `rows` stimuli.
    pub fn of_most_varying_channels(activations: &'a Activations, rows: usize) -> Self {
        Self {
            activations,
            channels: maps::most_varying(activations, rows, MAPS_PER_LAYER),
        }
    }

    fn width(&self) -> u32 {
        let maps = u32::try_from(self.channels.len()).unwrap_or(u32::MAX);
        (maps * (IMAGE + GAP))
            .saturating_sub(GAP)
            .max(Style::Bold.width(&self.title()))
    }

    fn title(&self) -> String {
        let [_, channels, height, width] = self.activations.shape;
        format!("{}  {channels} × {height} × {width}", self.activations.layer)
    }

    fn subtitle(&self) -> String {
        let indices: Vec<String> = self
            .channels
            .iter()
            .map(|channel| channel.index.to_string())
            .collect();
        let shown = format!("channels {}", indices.join(", "));
        font::fitted(&shown, Style::Plain, self.width())
    }
}

/// Where everything lies.
struct Layout {
    width: u32,
    height: u32,
    /// Left edges of the strips of maps, in the order of the columns.
    strips: Vec<u32>,
}

impl Layout {
    const PREDICTIONS: u32 = MARGIN + IMAGE + 20;

    fn of(figure: &Figure) -> Self {
        let mut right = Self::PREDICTIONS + PREDICTION_WIDTH;
        let mut strips = Vec::new();
        for column in &figure.columns {
            strips.push(right + COLUMN_GAP);
            right += COLUMN_GAP + column.width();
        }
        let heading = Style::Heading
            .width(&figure.heading)
            .max(Style::Plain.width(EXPLANATION));
        Self {
            width: right.max(MARGIN + heading) + MARGIN,
            height: Self::row(figure.rows.len()) - ROW_GAP + MARGIN,
            strips,
        }
    }

    /// Upper edge of a row.
    fn row(index: usize) -> u32 {
        HEAD + u32::try_from(index).unwrap_or(u32::MAX) * (IMAGE + ROW_GAP)
    }

    /// The place of a map in a strip.
    fn map(&self, column: usize, row: usize, map: usize) -> Area {
        let offset = u32::try_from(map).unwrap_or(u32::MAX) * (IMAGE + GAP);
        square(self.strips[column] + offset, Self::row(row))
    }
}

const EXPLANATION: &str =
    "For each layer the channels that vary most; each channel from its smallest activation";

fn square(x: u32, y: u32) -> Area {
    Area {
        x,
        y,
        width: IMAGE,
        height: IMAGE,
    }
}

/// Draws the figure.
pub fn draw(figure: &Figure) -> RgbImage {
    let layout = Layout::of(figure);
    let mut canvas = Canvas::new(layout.width, layout.height);
    draw_head(&mut canvas, figure, &layout);
    for (index, row) in figure.rows.iter().enumerate() {
        let y = Layout::row(index);
        draw_image(&mut canvas, square(MARGIN, y), row.image);
        draw_prediction(&mut canvas, y, row);
        for (column_index, column) in figure.columns.iter().enumerate() {
            for (map_index, channel) in column.channels.iter().enumerate() {
                let area = layout.map(column_index, index, map_index);
                draw_map(&mut canvas, area, column.activations, index, channel);
            }
        }
    }
    canvas.into_picture()
}

fn draw_head(canvas: &mut Canvas, figure: &Figure, layout: &Layout) {
    font::write(canvas, MARGIN, 28, &figure.heading, Style::Heading, BLACK);
    font::write(canvas, MARGIN, 62, EXPLANATION, Style::Plain, GREY);
    draw_scale(canvas, MARGIN + Style::Plain.width(EXPLANATION) + 16, 62);
    font::write(canvas, MARGIN, TITLES, "stimulus", Style::Bold, BLACK);
    font::write(
        canvas,
        Layout::PREDICTIONS,
        TITLES,
        "prediction",
        Style::Bold,
        BLACK,
    );
    for (column, &x) in figure.columns.iter().zip(&layout.strips) {
        font::write(canvas, x, TITLES, &column.title(), Style::Bold, BLACK);
        font::write(canvas, x, TITLES + 20, &column.subtitle(), Style::Plain, GREY);
    }
    let line = Area {
        x: MARGIN,
        y: HEAD - 12,
        width: layout.width - 2 * MARGIN,
        height: 1,
    };
    canvas.fill(line, LIGHT_GREY);
}

fn draw_scale(canvas: &mut Canvas, x: u32, y: u32) {
    let steps = SCALE_WIDTH as usize;
    let area = Area {
        x,
        y: y + 2,
        width: SCALE_WIDTH,
        height: 12,
    };
    canvas.grid(area, steps, 1, |step, _| {
        colour_map::colour(step as f32 / (steps - 1) as f32)
    });
    font::write(
        canvas,
        x + SCALE_WIDTH + 16,
        y,
        "to its largest",
        Style::Plain,
        GREY,
    );
}

fn draw_image(canvas: &mut Canvas, area: Area, image: &RgbImage) {
    let (columns, rows) = (image.width() as usize, image.height() as usize);
    canvas.grid(area, columns, rows, |column, row| {
        let index = (row * columns + column) * 3;
        let pixels = image.as_raw();
        image::Rgb([pixels[index], pixels[index + 1], pixels[index + 2]])
    });
    canvas.frame(area, LIGHT_GREY);
}

fn draw_prediction(canvas: &mut Canvas, y: u32, row: &Row) {
    let x = Layout::PREDICTIONS;
    let (colour, verdict) = match row.right {
        Some(true) => (GREEN, "right"),
        Some(false) => (RED, "wrong"),
        None => (BLUE, ""),
    };
    let name = font::fitted(row.predicted, Style::Bold, PREDICTION_WIDTH);
    font::write(canvas, x, y + 12, &name, Style::Bold, BLACK);
    let bar = Area {
        x,
        y: y + 36,
        width: PREDICTION_WIDTH,
        height: BAR_HEIGHT,
    };
    canvas.fill(bar, LIGHT_GREY);
    canvas.fill(
        Area {
            width: filled(row.probability),
            ..bar
        },
        colour,
    );
    let percentage = format!("{:.0} %", row.probability * 100.0);
    font::write(canvas, x, y + 54, &percentage, Style::Plain, BLACK);
    let right_edge = x + PREDICTION_WIDTH - Style::Bold.width(verdict);
    font::write(canvas, right_edge, y + 54, verdict, Style::Bold, colour);
}

/// How much of the bar a probability fills, in pixels.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is limited to the bar's width"
)]
fn filled(probability: f32) -> u32 {
    (probability.clamp(0.0, 1.0) * PREDICTION_WIDTH as f32).round() as u32
}

fn draw_map(canvas: &mut Canvas, area: Area, activations: &Activations, stimulus: usize, channel: &Channel) {
    let [_, _, height, width] = activations.shape;
    let map = activations.map(stimulus, channel.index);
    canvas.grid(area, width, height, |column, row| {
        colour_map::colour(channel.normalised(map[row * width + column]))
    });
}

#[cfg(test)]
mod tests {
    use super::super::canvas::WHITE;
    use super::*;

    /// The activation of every position is its index, so that every channel's last position is the largest.
    fn activations(layer: &str, shape: [usize; 4]) -> Activations {
        let positions = shape[2] * shape[3];
        let values = (0..shape.iter().product())
            .map(|index: usize| (index % positions) as f32)
            .collect();
        Activations {
            layer: layer.to_owned(),
            shape,
            values,
        }
    }

    #[test]
    fn every_part_has_its_place() {
        let image = RgbImage::from_pixel(4, 4, image::Rgb([1, 2, 3]));
        let row = Row {
            image: &image,
            predicted: "Bag",
            probability: 0.5,
            right: Some(false),
        };
        let (first, second) = (
            activations("layer1", [2, 8, 4, 4]),
            activations("layer3", [2, 3, 2, 2]),
        );
        let figure = Figure {
            heading: "Activations".to_owned(),
            rows: vec![row.clone(), row],
            columns: [&first, &second]
                .map(|layer| Column::of_most_varying_channels(layer, 2))
                .to_vec(),
        };
        let layout = Layout::of(&figure);
        let picture = draw(&figure);
        assert_eq!(picture.dimensions(), (layout.width, layout.height));

        for index in [0, 1] {
            let y = Layout::row(index);
            assert_eq!(picture.get_pixel(MARGIN, y).0, [1, 2, 3]);
            assert_eq!(picture.get_pixel(MARGIN + IMAGE - 1, y + IMAGE - 1).0, [1, 2, 3]);
            // Half of the bar is filled.
            assert_eq!(picture.get_pixel(Layout::PREDICTIONS, y + 36), &RED);
            assert_eq!(
                picture.get_pixel(Layout::PREDICTIONS + PREDICTION_WIDTH / 2 - 1, y + 36),
                &RED
            );
            assert_eq!(
                picture.get_pixel(Layout::PREDICTIONS + PREDICTION_WIDTH / 2, y + 36),
                &LIGHT_GREY
            );
            for (column, maps) in [(0, MAPS_PER_LAYER), (1, 3)] {
                for map in 0..maps {
                    let area = layout.map(column, index, map);
                    assert_eq!(picture.get_pixel(area.x, area.y), &colour_map::colour(0.0));
                    let last = picture.get_pixel(area.x + area.width - 1, area.y + area.height - 1);
                    assert_eq!(last, &colour_map::colour(1.0));
                }
            }
        }
        for x in 0..layout.width {
            assert_eq!(picture.get_pixel(x, layout.height - 1), &WHITE);
            assert_eq!(picture.get_pixel(x, 0), &WHITE);
        }
    }

    #[test]
    fn strips_neither_overlap_nor_leave_the_picture() {
        let image = RgbImage::new(1, 1);
        let layers = [
            activations("a", [1, 6, 1, 1]),
            activations("b", [1, 1, 1, 1]),
            activations("c", [1, 9, 2, 2]),
        ];
        let figure = Figure {
            heading: String::new(),
            rows: vec![Row {
                image: &image,
                predicted: "",
                probability: 1.0,
                right: None,
            }],
            columns: layers
                .iter()
                .map(|layer| Column::of_most_varying_channels(layer, 1))
                .collect(),
        };
        let layout = Layout::of(&figure);
        let mut right = Layout::PREDICTIONS + PREDICTION_WIDTH;
        for (column, &left) in figure.columns.iter().zip(&layout.strips) {
            assert!(left > right);
            right = left + column.width();
        }
        assert!(right + MARGIN <= layout.width);
    }

    #[test]
    fn a_bar_shows_probabilities_only() {
        assert_eq!([-1.0, 0.0, 0.5, 1.0, 7.0].map(filled), [0, 0, 86, 172, 172]);
        assert_eq!(filled(f32::NAN), 0);
    }
}
