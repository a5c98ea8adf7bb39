//! How many checks are in flight: the plugin gets at most `max_in_flight`, and no more than its
//! session has room for. All others stay in the check cache.

use std::ops::ControlFlow;

use admission_proto::Pin;
use admission_proto::wire::plugin::Admission;

use super::check_cache::{CheckId, Question};
use super::core::Core;
use super::life::Order;
use crate::session::Session;

/// Sends checks while there is room for them; none before the plugin has connected. Breaks if
/// the plugin is closed or broken.
pub(super) fn send_checks(
    core: &Core,
    session: &mut dyn Session,
    connected: bool,
) -> ControlFlow<()> {
    loop {
        let max_in_flight = if connected {
            session.capacity(core.options.max_in_flight)
        } else {
            0
        };
        match core.life.next_order(max_in_flight) {
            Order::Close => return ControlFlow::Break(()),
            Order::Send(id, Question { pin, origin }) => {
                let service_url = match &origin {
                    Some(origin) => &origin.service_url,
                    None => &core.services.settings.service_url,
                };
                session.send_admission(admission(id, &pin, service_url));
            }
            Order::Wait => return ControlFlow::Continue(()),
        }
    }
}

fn admission(id: CheckId, pin: &Pin, service_url: &str) -> Admission {
    Admission {
        admission_id: id.to_wire(),
        service_url: service_url.to_owned(),
        package: pin.package().to_owned(),
        instance: Some(pin.instance().object_ref().into()),
    }
}
