//! How far a weight is from 1, in a few steps that colours can show.

use super::About;

/// Steps on either side of 1.
pub(super) const NUM_SHADES: u8 = 4;

/// Which side of 1 a weight is on, and how far: 1 to [`NUM_SHADES`], where the last is the outer quarter of the way to
/// the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shade {
    Below(u8),
    /// Too near to 1 to say: within a sixteenth of the way to the bound.
    Even,
    Above(u8),
}

/// Whether a weight is at one of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Lowest,
    Highest,
}

impl About {
    pub(super) fn shade(&self, weight: f32) -> Shade {
        let (way, whole) = match weight < 1.0 {
            true => (1.0 - weight, 1.0 - self.lowest_weight),
            false => (weight - 1.0, self.highest_weight - 1.0),
        };
        let share = if whole > 0.0 { (way / whole).min(1.0) } else { 0.0 };
        if share < 1.0 / 16.0 {
            return Shade::Even;
        }
        let shade = (share * f32::from(NUM_SHADES)).ceil() as u8;
        if weight < 1.0 { Shade::Below(shade) } else { Shade::Above(shade) }
    }

    pub(super) fn bound(&self, weight: f32) -> Option<Bound> {
        // With no room on a side every weight would be at that bound, and saying so would say nothing.
        if weight <= self.lowest_weight && self.lowest_weight < 1.0 {
            Some(Bound::Lowest)
        } else if weight >= self.highest_weight && self.highest_weight > 1.0 {
            Some(Bound::Highest)
        } else {
            None
        }
    }
}
