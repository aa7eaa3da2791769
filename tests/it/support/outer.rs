//! The outer tar of a bundle, read and written without pacharc's own code.

use std::collections::BTreeSet;
use std::ops::Range;

/// An entry of the outer container.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name without the folder.
    pub name: String,
    pub header: usize,
    pub content: Range<usize>,
}

impl Place {
    /// Where the next header begins.
    pub fn end(&self) -> usize {
        self.content.end.next_multiple_of(512)
    }

    pub fn middle(&self) -> usize {
        (self.content.start + self.content.end) / 2
    }
}

fn octal(field: &[u8]) -> usize {
    let digits = String::from_utf8_lossy(field);
    usize::from_str_radix(digits.trim_matches(['\0', ' ']), 8).unwrap()
}

pub fn places(bundle: &[u8]) -> Vec<Place> {
    let (mut places, mut header) = (Vec::new(), 0);
    while bundle[header] != 0 {
        let block = &bundle[header..header + 512];
        let name = String::from_utf8_lossy(&block[..100]).trim_end_matches('\0').to_owned();
        let content = header + 512..header + 512 + octal(&block[124..136]);
        let name = name.split_once('/').unwrap().1.to_owned();
        let place = Place { name, header, content };
        header = place.end();
        places.push(place);
    }
    assert_eq!(header + 1024, bundle.len());
    places
}

/// One of each kind: names that differ by a number are one kind.
pub fn kinds(bundle: &[u8]) -> Vec<Place> {
    let mut seen = BTreeSet::new();
    let kind = |place: &Place| place.name.replace(|c: char| c.is_ascii_digit(), "");
    let places: Vec<Place> = places(bundle).into_iter().filter(|place| seen.insert(kind(place))).collect();
    assert!(places.len() >= 10, "{places:?}");
    places
}

/// The 512 bytes of a header, with another size and the checksum that fits.
pub fn resize(header: &mut [u8], size: usize) {
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    sum(header);
}

/// Gives a header the checksum that fits it.
pub fn sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
}
