//! Where clients and sites are on the globe, and how far that is.
//!
//! A client's place is what a file in MaxMind's format (MMDB 2.0: GeoLite2 City, DB-IP City, or one of the operator's own) says of its
//! address. Pure: the caller reads the file.

use std::{fmt, net::IpAddr};

use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;

/// The mean radius of the earth (IUGG), in kilometres.
const EARTH_RADIUS_KM: f64 = 6371.0088;

/// A place: degrees north and east.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coordinates {
    latitude: f64,
    longitude: f64,
}

impl Coordinates {
    /// A place, if the latitude is from -90 to 90 and the longitude from -180 to 180 degrees.
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let is_place = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        is_place.then_some(Self { latitude, longitude })
    }

    /// Degrees north of the equator.
    pub const fn latitude(self) -> f64 {
        self.latitude
    }

    /// Degrees east of Greenwich.
    pub const fn longitude(self) -> f64 {
        self.longitude
    }
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.latitude, self.longitude)
    }
}

/// A place as a point on the sphere of radius 1, where a distance takes no trigonometry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnSphere([f64; 3]);

impl From<Coordinates> for OnSphere {
    fn from(place: Coordinates) -> Self {
        let (latitude, longitude) = (place.latitude.to_radians(), place.longitude.to_radians());
        Self([latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()])
    }
}

impl OnSphere {
    /// Its three coordinates.
    pub const fn get(self) -> [f64; 3] {
        self.0
    }

    /// How far apart two places are.
    pub fn half_chord(self, other: Self) -> HalfChord {
        let square = |at: usize| (self.0[at] - other.0[at]) * (self.0[at] - other.0[at]);
        HalfChord(((square(0) + square(1) + square(2)).sqrt() / 2.0).min(1.0))
    }
}

/// Half of the straight line through the globe between two places, from 0 to 1: the sine of half the angle. It orders places as the great
/// circle does, takes no trigonometry, and loses no digits for places close together.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct HalfChord(f64);

impl HalfChord {
    /// Of a distance along a great circle, in kilometres; 1, the other side of the globe, for what is further.
    pub fn of_km(km: f64) -> Self {
        let angle = km / (2.0 * EARTH_RADIUS_KM);
        Self(if angle < std::f64::consts::FRAC_PI_2 { angle.sin() } else { 1.0 })
    }

    /// Along a great circle, in kilometres.
    pub fn as_km(self) -> f64 {
        2.0 * EARTH_RADIUS_KM * self.0.asin()
    }

    /// From 0 to 1.
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// The largest file of places, in bytes: it is kept in memory whole. The largest ones that are sold have some 500 MB.
pub const FILE_BYTES_MAX: u64 = 2 << 30;
/// The longest region that is believed, in bytes: "US-CA" has five.
const REGION_BYTES_MAX: usize = 16;

/// Which addresses are where.
pub struct Places(Reader<Vec<u8>>);

/// What is known of an address.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Located {
    /// Country and, where the file has it, its first subdivision (ISO 3166-2): "DE-BE", "DE".
    pub region: Option<String>,
    pub place: Option<Coordinates>,
}

/// As much of a record as is of use; all files of this format name it so.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Area<'a>>,
    #[serde(borrow, default)]
    subdivisions: Vec<Area<'a>>,
    location: Option<Location>,
}

#[derive(Deserialize)]
struct Area<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl Places {
    /// The places in the bytes of a file.
    pub fn new(file: Vec<u8>) -> Result<Self, NotPlaces> {
        Reader::from_source(file).map(Self).map_err(NotPlaces)
    }

    /// Where an address is, as far as the file knows; what is flawed in a record is not known.
    pub fn locate(&self, address: IpAddr) -> Located {
        let found = self.0.lookup(address.to_canonical());
        let Some(record) = found.ok().and_then(|found| found.decode::<Record<'_>>().ok().flatten()) else {
            return Located::default();
        };
        let country = record.country.and_then(|country| country.iso_code);
        let region = country.map(|country| match record.subdivisions.first().and_then(|area| area.iso_code) {
            Some(subdivision) => format!("{country}-{subdivision}"),
            None => country.to_owned(),
        });
        let is_code = |region: &String| {
            region.len() <= REGION_BYTES_MAX && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let degrees = record.location.and_then(|location| location.latitude.zip(location.longitude));
        let place = degrees.and_then(|(latitude, longitude)| Coordinates::new(latitude, longitude));
        Located { region: region.filter(is_code), place }
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Places").field(self.0.metadata()).finish()
    }
}

/// The bytes are not a file of places.
#[derive(Debug, thiserror::Error)]
#[error("it is not in MaxMind's format (MMDB): {0}")]
pub struct NotPlaces(MaxMindDbError);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn place(latitude: f64, longitude: f64) -> Coordinates {
        Coordinates::new(latitude, longitude).unwrap()
    }

    #[test]
    fn distances_are_those_of_the_great_circle() {
        let (berlin, paris, sydney) = (place(52.52, 13.405), place(48.8566, 2.3522), place(-33.8688, 151.2093));
        for (from, to, km) in [
            (berlin, paris, 877.5),
            (berlin, sydney, 16_094.5),
            (berlin, berlin, 0.0),
            (place(90.0, 0.0), place(-90.0, 77.0), 20_015.1),
        ] {
            let half_chord = OnSphere::from(from).half_chord(OnSphere::from(to));
            assert!((half_chord.as_km() - km).abs() < 1.0, "{from} to {to}: {}", half_chord.as_km());
            assert!((HalfChord::of_km(km).get() - half_chord.get()).abs() < 1e-3);
        }
        assert_eq!(HalfChord::of_km(99_999.0).get(), 1.0);
    }

    #[test]
    fn places_are_on_the_globe() {
        assert!(Coordinates::new(-90.0, 180.0).is_some());
        for (latitude, longitude) in [(90.1, 0.0), (0.0, -180.1), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert_eq!(Coordinates::new(latitude, longitude), None);
        }
    }

    /// A file in MaxMind's format 2.0 that knows one IPv4 network of a length in whole bits, and of it this record.
    pub(crate) fn mmdb(network: [u8; 4], bits: u32, record: &[u8]) -> Vec<u8> {
        // A search tree of one node for each bit, each with two records of 24 bits: on the network's path the next node, off it
        // "nothing", which is the number of nodes. What is beyond points into the data section, after 16 bytes of zeros.
        let nothing = bits;
        let mut file = Vec::new();
        for bit in 0..bits {
            let next = if bit + 1 == bits { bits + 16 } else { bit + 1 };
            let is_one = u32::from_be_bytes(network) >> (31 - bit) & 1 == 1;
            let (left, right) = if is_one { (nothing, next) } else { (next, nothing) };
            [left, right].iter().for_each(|record| file.extend(&record.to_be_bytes()[1..]));
        }
        file.extend([0; 16]);
        file.extend(record);
        file.extend(b"\xAB\xCD\xEFMaxMind.com");
        let number = |file: &mut Vec<u8>, key: &str, value: u16| {
            file.extend(string(key));
            file.push(0xA2);
            file.extend(value.to_be_bytes());
        };
        file.push(0xE0 | 9);
        number(&mut file, "binary_format_major_version", 2);
        number(&mut file, "binary_format_minor_version", 0);
        number(&mut file, "ip_version", 4);
        number(&mut file, "record_size", 24);
        file.extend([string("build_epoch"), vec![0x00, 0x02]].concat());
        file.extend([string("node_count"), vec![0xC4], bits.to_be_bytes().to_vec()].concat());
        file.extend(string("database_type"));
        file.extend(string("test"));
        file.extend(string("languages"));
        file.extend([0x00, 0x04]);
        file.extend(string("description"));
        file.push(0xE0);
        file
    }

    /// A string of fewer than 29 bytes, as MMDB writes it.
    pub(crate) fn string(text: &str) -> Vec<u8> {
        let mut bytes = vec![0x40 | u8::try_from(text.len()).unwrap()];
        bytes.extend(text.as_bytes());
        bytes
    }

    /// `{country: {iso_code}, subdivisions: [{iso_code}], location: {latitude, longitude}}`
    pub(crate) fn record(country: &str, subdivision: &str, latitude: f64, longitude: f64) -> Vec<u8> {
        let mut bytes = vec![0xE3];
        bytes.extend([string("country"), vec![0xE1], string("iso_code"), string(country)].concat());
        bytes.extend([string("subdivisions"), vec![0x01, 0x04, 0xE1], string("iso_code"), string(subdivision)].concat());
        bytes.extend([string("location"), vec![0xE2]].concat());
        for (name, degrees) in [("latitude", latitude), ("longitude", longitude)] {
            bytes.extend(string(name));
            bytes.push(0x68);
            bytes.extend(degrees.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn an_address_is_where_the_file_says() {
        let places = Places::new(mmdb([192, 0, 2, 0], 24, &record("DE", "BE", 52.52, 13.4))).unwrap();
        let berlin = Located { region: Some("DE-BE".into()), place: Some(place(52.52, 13.4)) };
        assert_eq!(places.locate("192.0.2.7".parse().unwrap()), berlin);
        assert_eq!(places.locate("::ffff:192.0.2.7".parse().unwrap()), berlin);
        for elsewhere in ["192.0.3.7", "2001:db8::1"] {
            assert_eq!(places.locate(elsewhere.parse().unwrap()), Located::default(), "{elsewhere}");
        }
    }

    #[test]
    fn a_flawed_file_is_refused_and_a_flawed_record_is_not_known() {
        let error = Places::new(b"not a file of places".to_vec()).unwrap_err();
        assert!(error.to_string().starts_with("it is not in MaxMind's format (MMDB)"), "{error}");
        let unlikely = Places::new(mmdb([192, 0, 2, 0], 24, &record("D\u{0}E", "BE", 91.0, 13.4))).unwrap();
        assert_eq!(unlikely.locate("192.0.2.7".parse().unwrap()), Located::default());
        let no_map = Places::new(mmdb([192, 0, 2, 0], 24, &string("no map"))).unwrap();
        assert_eq!(no_map.locate("192.0.2.7".parse().unwrap()), Located::default());
    }
}
