/*
 * The counters and the features of a data process, by name: X(name). The names are what tartand shows, so they are the
 * contract of every engine. The order is that of the words in shared memory (layout.h).
 */
#ifndef TARTAN_COUNTERS_H
#define TARTAN_COUNTERS_H

/*
 * In the order of the checks. Each packet that is read ends in exactly one counter of COUNTERS_RX, COUNTERS_RX_LATER or
 * COUNTERS_TX; those of COUNTERS_NOTES and COUNTERS_NOTES_LATER are counted in addition. The later ones stand at the end,
 * because a data process of an earlier build of this layout has the others at these places. A packet is what crosses the underlay in a datagram of its own: a TSO
 * packet counts as the number of its segments, also when it is dropped.
 */
#define COUNTERS_RX(X) \
	X(rx_ok) X(rx_fenced) X(rx_orphaned) X(rx_oversize) X(rx_short) X(rx_not_member) X(rx_bad_version) \
	X(rx_bad_ihl) X(rx_bad_len) X(rx_bad_csum) X(rx_ttl) X(rx_martian) X(rx_spoof_src) X(rx_bad_dst) \
	X(rx_srcroute) X(rx_bad_frag) X(rx_gso) X(rx_error_tun)
#define COUNTERS_TX(X) \
	X(tx_ok) X(tx_fenced) X(tx_orphaned) X(tx_short) X(tx_bad_version) X(tx_bad_ihl) X(tx_bad_len) \
	X(tx_bad_csum) X(tx_bad_src) X(tx_spoof_src) X(tx_noroute) X(tx_ttl) X(tx_oversize) X(tx_error_perm) \
	X(tx_error_unreach) X(tx_error_nobufs) X(tx_error_msgsize) X(tx_error_other)
#define COUNTERS_NOTES(X) \
	X(rx_trimmed) X(rx_opts) X(rx_port) X(rx_bytes) X(rx_socket_errors) X(tx_bytes) X(tx_tun_errors) \
	X(tx_gso_off) X(icmp_sent) X(icmp_limited) X(table_refused)
#define COUNTERS_RX_LATER(X) X(rx_bad_type) X(rx_bad_probe) X(rx_probe)
#define COUNTERS_NOTES_LATER(X) X(probes_asked) X(probes_answered) X(probes_limited)
#define COUNTERS(X) \
	COUNTERS_RX(X) COUNTERS_TX(X) COUNTERS_NOTES(X) COUNTERS_RX_LATER(X) COUNTERS_NOTES_LATER(X)

enum counter {
#define COUNTER_ENUM(name) name,
	COUNTERS(COUNTER_ENUM)
#undef COUNTER_ENUM
	COUNTER_COUNT
};

/*
 * What kernel and data process do for each other, as found at the start. Each is a bit of counters_file.features.
 *   tun_csum, tun_tso, tun_uso   packets from the TUN without checksums, uncut TCP, uncut UDP (TUNSETOFFLOAD)
 *   udp_segment, udp_gro         many datagrams in one message, to and from the underlay (udp(7))
 *   path_mtu                     the underlay's path MTU is asked for when a datagram was too long for the path
 *   sparse_apart                 flows that send little have a queue and a socket of their own
 */
#define FEATURES(X) X(tun_csum) X(tun_tso) X(tun_uso) X(udp_segment) X(udp_gro) X(path_mtu) X(sparse_apart)

enum feature_number {
#define FEATURE_ENUM(name) number_##name,
	FEATURES(FEATURE_ENUM)
#undef FEATURE_ENUM
	FEATURE_COUNT
};
#define FEATURE(name) (1u << number_##name)

/*
 * What the kernel refused at the start, although every kernel has it. Each is a bit of counters_file.refused.
 *   udp_df       outer packets with DF, so that a path that is too narrow is told to the inner sender (ip(7))
 *   sparse_tos   the TOS by which a peer knows packets of sparse flows
 */
#define REFUSALS(X) X(udp_df) X(sparse_tos)

enum refusal_number {
#define REFUSAL_ENUM(name) refusal_##name,
	REFUSALS(REFUSAL_ENUM)
#undef REFUSAL_ENUM
	REFUSAL_COUNT
};
#define REFUSED(name) (1u << refusal_##name)

#endif
