//! Where packets end: every path out of the kernel programs adds to exactly one of these.

/// Packets and wire bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

macro_rules! counted_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every variant, in the order of its counter.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Parses the integer of a variant.
            #[must_use]
            #[inline(always)]
            pub const fn from_raw(raw: u32) -> Option<Self> {
                if (raw as usize) < Self::ALL.len() {
                    // SAFETY: repr(u32), and the variants are numbered from 0 without a gap.
                    Some(unsafe { core::mem::transmute::<u32, Self>(raw) })
                } else {
                    None
                }
            }

            /// The name used in coverage records and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

counted_enum! {
    /// Why a packet is in no flow. Together with flows and overflow these are all packets seen.
    Outcome {
        /// Shorter than an Ethernet header.
        Runt = "runt",
        /// Ends inside a VLAN tag.
        TruncatedVlan = "truncated_vlan",
        /// More VLAN tags than the two that are read.
        TooManyVlans = "too_many_vlans",
        Arp = "arp",
        /// 802.1X, ethertype 0x888e.
        Eapol = "eapol",
        Lldp = "lldp",
        /// PPPoE discovery or session.
        Pppoe = "pppoe",
        /// 802.3 length field instead of an ethertype (spanning tree and other LLC).
        Llc = "llc",
        /// Any other ethertype.
        OtherEthertype = "other_ethertype",
        /// IPv4 header short, of bad length or wrong version.
        BadIpv4 = "bad_ipv4",
        /// IPv6 header short or of wrong version.
        BadIpv6 = "bad_ipv6",
        /// An IPv6 extension header runs past the end of the packet.
        TruncatedExtension = "truncated_extension",
        /// More IPv6 extension headers than are followed.
        TooManyExtensions = "too_many_extensions",
        /// The packet ends inside the transport header's ports.
        TruncatedTransport = "truncated_transport",
        /// With `--client-net`: neither address is a client's.
        NoClient = "no_client",
        /// Neither slot, ring nor overflow total had room; only this counter knows the packet.
        OverflowFull = "overflow_full",
    }
}

counted_enum! {
    /// Things worth counting that do not decide where a packet ends.
    Happening {
        /// A new flow was announced on the ring.
        Announced = "announced",
        /// The ring had no room for an announcement; the flow is in the cache.
        AnnouncementSkipped = "announcement_skipped",
        /// A slot was handed over on the ring to make room.
        Evicted = "evicted",
        /// A packet that would have opened a flow, or a slot that had to begin anew, was added to its client's overflow total: the
        /// ring was full, or the client had had its share of it.
        ToOverflow = "to_overflow",
        /// A frame of DHCP, ARP or neighbour discovery was copied to the agent; it is counted in its flow or outcome too.
        Noticed = "noticed",
        /// Such a frame was not copied: its device had had its share of the generation, or the ring was full.
        NoticeSkipped = "notice_skipped",
    }
}

/// What one CPU counted on one interface in one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Tally {
    /// Every packet the programs were given. `seen = flows + overflow + outcomes`.
    pub seen: Count,
    /// Indexed by [`Outcome`].
    pub outcomes: [Count; Outcome::ALL.len()],
    /// Indexed by [`Happening`].
    pub happenings: [u64; Happening::ALL.len()],
}

impl Tally {
    /// Nothing was seen.
    pub const EMPTY: Self = {
        let none = Count { packets: 0, bytes: 0 };
        Self { seen: none, outcomes: [none; Outcome::ALL.len()], happenings: [0; Happening::ALL.len()] }
    };
}

impl Default for Tally {
    fn default() -> Self {
        Self::EMPTY
    }
}

const _: () = assert!(size_of::<Tally>() == 16 + 16 * 16 + 6 * 8);
