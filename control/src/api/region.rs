//! Where a client is, as what viewers do is counted by.

use super::App;
use crate::identity::address::Client;

/// The region of whoever asks, such as "DE-BE"; empty where nobody knows it: without a file of places (`steering.places_file`), or for
/// addresses that are in none.
pub(super) fn region_of(app: &App, client: Client) -> String {
    app.steering.locate(client.address).region.unwrap_or_default()
}
