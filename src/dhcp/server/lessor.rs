//! Addresses for interfaces that are static in a network with a range: out of the same book as those
//! that are asked for, so that nobody gets one twice.

use super::{DhcpServer, Shared, now_s, read_interface};
use crate::dhcp::answer::{Mode, is_used};
use crate::dhcp::lease::Exhausted;
use crate::model::network::{Lan, Mac};
use crate::port::netboot::Lessor;
use async_trait::async_trait;
use std::net::Ipv4Addr;
use std::sync::Arc;

impl DhcpServer {
    /// Gives addresses, where it is the network's server: beside another one it has none to give.
    pub fn lessor(&self) -> Option<Arc<dyn Lessor>> {
        (self.0.settings.mode == Mode::Reservation).then(|| self.0.clone() as Arc<dyn Lessor>)
    }
}

#[async_trait]
impl Lessor for Shared {
    fn lease_of(&self, network: &str, mac: Mac) -> Option<Ipv4Addr> {
        self.memory().leases.kept_of(network, mac)
    }

    async fn lease(&self, lan: &Lan, mac: Mac) -> Result<Ipv4Addr, String> {
        let residents = self.roster.residents(mac).await;
        let own = self.settings.interfaces.iter().flat_map(|name| read_interface(name).addresses);
        let own: Vec<Ipv4Addr> = own.collect();
        let barred = |a: Ipv4Addr| own.contains(&a) || is_used(a, lan, &residents);
        let given = self.memory().leases.allocate(lan, mac, None, barred, now_s());
        let given = given.map_err(|Exhausted| match lan.range {
            Some(range) => format!("network `{}` has no free address left in {range}", lan.name),
            None => format!("network `{}` has no `range` to give an address from", lan.name),
        })?;
        if let Some(record) = given.keep {
            self.journal.keep(record.clone()).await?;
            self.memory().leases.kept(&record);
        }
        Ok(given.address)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ports, Settings};
    use super::*;
    use crate::dhcp::{Unknown, kept_leases};
    use crate::port::netboot::{Loaders, Netboot, NetbootPlan, Residents, Roster};

    /// A network with room for two, of which the inventory gives one away.
    struct Small(Lan);

    #[async_trait]
    impl Roster for Small {
        async fn lans(&self) -> Arc<[Lan]> {
            [self.0.clone()].into()
        }
        async fn residents(&self, _: Mac) -> Arc<Residents> {
            let addresses = [Ipv4Addr::new(10, 30, 0, 100)].into();
            Arc::new(Residents { addresses, ..Residents::default() })
        }
    }

    #[async_trait]
    impl Netboot for Small {
        async fn boot_of(&self, _: Mac) -> Option<NetbootPlan> {
            None
        }
        async fn other_asked(&self, _: Mac, _: &str) {}
    }

    #[tokio::test]
    async fn a_given_address_is_durable_and_nobody_elses() {
        let state = tempfile::tempdir().unwrap();
        let range = Some("10.30.0.100-10.30.0.101".parse().unwrap());
        let lan = Lan { range, ..Lan::new("provision", "10.30.0.0/24".parse().unwrap()) };
        let open = |mode| {
            let settings = Settings {
                mode,
                interfaces: Vec::new(),
                unknown: Unknown::Refuse,
                loaders: Loaders::default(),
                lease_s: 60,
                ports: Ports::default(),
            };
            let site = Arc::new(Small(lan.clone()));
            DhcpServer::open(state.path(), settings, site.clone(), site).unwrap().lessor()
        };
        assert!(open(Mode::Proxy).is_none(), "another server's range");
        let lessor = open(Mode::Reservation).unwrap();
        let (one, two) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        assert_eq!(lessor.lease_of("provision", one), None);
        let given = lessor.lease(&lan, one).await.unwrap();
        assert_eq!(given, Ipv4Addr::new(10, 30, 0, 101));
        assert_eq!(kept_leases(state.path()).unwrap().of("provision", one), Some(given));
        assert_eq!(lessor.lease(&lan, one).await, Ok(given), "the same for ever");
        let why = lessor.lease(&lan, two).await.unwrap_err();
        assert!(why.contains("no free address"), "{why}");
        drop(lessor);
        let lessor = open(Mode::Reservation).unwrap();
        assert_eq!(lessor.lease_of("provision", one), Some(given), "after a restart");
    }
}
