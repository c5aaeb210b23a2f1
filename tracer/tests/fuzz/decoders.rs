//! Decoders of kernel input: records of the programs, netlink messages, BTF and tracepoint formats.

use std::net::{TcpListener, TcpStream};

use tcptrace_bpf::sources::{
    live::{
        btf::Btf,
        decode::{self, AddressKey},
        reasons::Reasons,
        tracefs::parse_format,
    },
    sock_diag::{decode::message, sockets_in},
};
use tracer_ebpf::{
    AF_INET, AF_INET6, AcceptQueue, FunctionName, Ipv6Addresses, Parts, Process, Record, RecordKind, TcpInfo,
    ThreadName, flags, tcp_state,
};

use super::mutate::{Random, mutate};

fn each_mutation(samples: &[Vec<u8>], count: usize, mut decode: impl FnMut(&[u8])) {
    let mut random = Random::new(0x7463_7074_7261_6365);
    for index in 0..count {
        decode(&mutate(&samples[index % samples.len()], &mut random));
    }
}

fn record(kind: RecordKind) -> Parts {
    let family = if (kind as u8).is_multiple_of(2) { AF_INET } else { AF_INET6 };
    let addresses = (family == AF_INET6).then_some(Ipv6Addresses { local: [127; 16], remote: [1; 16] });
    let long = if addresses.is_some() { flags::IPV6_ADDRESSES } else { 0 };
    Parts {
        record: Record {
            time_ns: 5_000_000_000,
            socket: 0xffff_8880_1234_5678,
            cookie: 9,
            value: 77,
            local_address: [127, 0, 0, 1],
            remote_address: [127, 0, 0, 2],
            flags: flags::PROCESS
                | flags::NETNS
                | flags::SOCKET_FIELDS
                | flags::ACCEPT_QUEUE
                | flags::CGROUP
                | flags::THREAD
                | flags::DATA_SEGMENTS
                | flags::REASON
                | flags::FUNCTION
                | long,
            netns: 4_026_531_840,
            local_port: 4242,
            remote_port: 443,
            error: 111,
            shutdown: 3,
            attempts: 2,
            kind: kind as u8,
            old_state: tcp_state::SYN_SENT,
            new_state: tcp_state::CLOSE,
            family,
            extra: 3,
        },
        addresses,
        process: Some(Process { tgid: 42, uid: 1000, comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0" }),
        thread: Some(ThreadName { comm: *b"worker-1\0\0\0\0\0\0\0\0" }),
        accept_queue: Some(AcceptQueue { length: 1, limit: 128 }),
        info: None,
        function: Some(FunctionName { name: *b"nft_do_chain [nf_tables]\0\0\0\0\0\0\0\0" }),
    }
}

#[test]
fn records_of_the_programs() {
    let bytes = |parts: &Parts| parts.slices().collect::<Vec<_>>().concat();
    let mut samples: Vec<Vec<u8>> = RecordKind::ALL.iter().map(|kind| bytes(&record(*kind))).collect();
    let plain = record(RecordKind::Transition);
    let info = TcpInfo { srtt_us: 10, min_rtt_us: u32::MAX, ..TcpInfo::default() };
    let with_info = Record { flags: plain.record.flags | flags::INFO, ..plain.record };
    samples.push(bytes(&Parts { record: with_info, info: Some(info), ..plain }));
    for sample in &samples {
        let mut event = false;
        let length = decode::event(sample, AddressKey::random(), &Reasons::default(), |decoded| {
            event = decoded.is_some();
        });
        assert_eq!((event, length), (true, Some(sample.len())));
    }
    let key = AddressKey::random();
    let mut decoded = 0;
    each_mutation(&samples, 100_000, |bytes| {
        decode::event(bytes, key, &Reasons::default(), |event| decoded += usize::from(event.is_some()));
    });
    assert!(decoded > 10_000, "{decoded}");
}

/// Returns a datagram of this kernel's socket dump.
fn netlink_datagrams() -> Vec<Vec<u8>> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let _client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )
    .expect("sock_diag needs no privilege");
    let mut request = Vec::new();
    request.extend(72_u32.to_ne_bytes());
    request.extend(20_u16.to_ne_bytes());
    request.extend(0x301_u16.to_ne_bytes());
    request.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    // IPv4, TCP, INET_DIAG_INFO and INET_DIAG_SKMEMINFO, every state.
    request.extend([2, 6, 0x42, 0]);
    request.extend(0xfff_u32.to_ne_bytes());
    request.resize(72, 0);
    rustix::net::send(&socket, &request, SendFlags::empty()).expect("the kernel takes requests");
    let mut buffer = vec![0; 1 << 16];
    let (read, _) =
        rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()).expect("the kernel answers");
    buffer.truncate(read);
    vec![buffer]
}

#[test]
fn netlink() {
    let samples = netlink_datagrams();
    let found = sockets_in(&samples[0], 7);
    assert!(found.iter().any(Result::is_ok), "{found:?}");
    // Mutates only the first messages.
    let samples: Vec<Vec<u8>> = samples.iter().map(|it| it[..it.len().min(1500)].to_vec()).collect();
    each_mutation(&samples, 50_000, |bytes| {
        let _ = sockets_in(bytes, 7);
        let _ = message(bytes.get(16..).unwrap_or_default());
    });
}

/// Encodes `struct sock { int sk_err; struct inner { short a; } in; unsigned bits : 3; }`, and a pointer to it.
fn btf() -> Vec<u8> {
    let strings = b"\0sock\0sk_err\0int\0inner\0a\0in\0bits\0";
    let name = |text: &str| {
        let whole = format!("\0{text}\0");
        let at = strings.windows(whole.len()).position(|window| window == whole.as_bytes());
        u32::try_from(at.expect("it is there") + 1).expect("it is short")
    };
    let mut words: Vec<u32> = Vec::new();
    let info = |kind: u32, members: u32, flag: u32| (kind << 24) | members | (flag << 31);
    words.extend([name("int"), info(1, 0, 0), 4, 32]);
    words.extend([name("inner"), info(4, 1, 0), 4, name("a"), 1, 0]);
    words.extend([name("sock"), info(4, 3, 1), 12]);
    words.extend([name("sk_err"), 1, 0, name("in"), 2, 32, name("bits"), 1, (3 << 24) | 64]);
    words.extend([0, info(2, 0, 0), 3]);
    let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("it is short");
    let header = [24, 0, length(&types), length(&types), length(strings)];
    let mut bytes = vec![];
    bytes.extend(0xeb9f_u16.to_ne_bytes());
    bytes.extend([1, 0]);
    bytes.extend(header.iter().flat_map(|word: &u32| word.to_ne_bytes()));
    bytes.extend(types);
    bytes.extend(strings);
    bytes
}

#[test]
fn kernel_types() {
    let samples = [btf()];
    let good = Btf::parse(samples[0].clone()).expect("the sample is BTF");
    assert_eq!((good.offset_of("sock", "sk_err"), good.offset_of("sock", "in.a")), (Some(0), Some(4)));
    each_mutation(&samples, 100_000, |bytes| {
        if let Ok(btf) = Btf::parse(bytes.to_vec()) {
            for path in ["sk_err", "in.a", "bits", "in.in.in", "nothing"] {
                let _ = btf.offset_of("sock", path);
            }
        }
    });
}

#[test]
fn the_format_of_a_tracepoint() {
    let format = include_str!("../data/inet_sock_set_state.format");
    assert!(parse_format(format).is_ok());
    each_mutation(&[format.as_bytes().to_vec()], 50_000, |bytes| {
        let _ = parse_format(&String::from_utf8_lossy(bytes));
    });
}
