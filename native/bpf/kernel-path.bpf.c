/*
 * The kernel engine on the packet path: two clsact programs with direct action. `outbound` at egress of tartan0 chooses
 * the packets that go to a peer by the kernel's VXLAN-GPE device tartan-k. `inbound` at ingress of tartan-k takes what
 * members send, and hands it to the stack as if it had come from tartan0. The rules and the counters are those of
 * datapath/forward.c.
 *
 * Whatever `outbound` does not take goes on into tartan0, where the data process judges, counts and answers it. So only
 * the data process makes ICMP errors.
 *
 * generate.mjs compiles this file to kernel-programs.h. Helpers for packets end in _bytes, _key as in bpf-helpers(7).
 * The kernel lends bpf_fib_lookup() to programs under the GPL only, so this file may be used under GPL-2.0, too.
 *
 * Sources: bpf-helpers(7), tc-bpf(8), RFC 791, draft-ietf-nvo3-vxlan-gpe.
 */
#include "kernel-helpers.h"
#include "kernel-probe.h"

/* Every IPv4 path is taken to carry so many inner bytes without a look-up: their outer packet has 1,264. */
#define FITS_EVERY_PATH 1228u

#define SECTION(name) __attribute__((section(name), used))

static inline uint32_t segments(const struct __sk_buff *skb)
{
	return skb->gso_segs > 1 ? skb->gso_segs : 1;
}

/* False if the headers of the segments cannot be told. */
static inline bool measure(struct __sk_buff *skb, struct hand *h)
{
	const struct view *v = &h->view;
	struct crossing *c = &h->crossing;
	uint32_t headers = v->header_bytes + 8;

	*c = (struct crossing){ .packets = segments(skb), .bytes = v->length, .longest = v->length };
	if (skb->gso_size == 0)
		return true;
	if (v->protocol == IPPROTO_TCP) {
		if (load_bytes(skb, v->start + v->header_bytes + 12, PART(h, offset), 1) != 0)
			return false;
		headers = v->header_bytes + (h->offset >> 4 << 2);
	} else if (v->protocol != IPPROTO_UDP) {
		return false;
	}
	c->bytes += (c->packets - 1) * headers;
	c->longest = skb->gso_size + headers;
	return true;
}

/*
 * Never NULL: without CAP_PERFMON the verifier follows also branches that a processor takes by mistake, and would refuse
 * a pointer that is checked in one place and used in another.
 */
static inline struct kernel_traffic *traffic_of(struct hand *h)
{
	struct kernel_traffic *t = look_up(&traffic_map, PART(h, number));

	if (t != NULL)
		return t;
	update(&traffic_map, PART(h, number), &config.no_traffic, BPF_NOEXIST);
	t = look_up(&traffic_map, PART(h, number));
	return t != NULL ? t : &h->unnoted;
}

/*
 * Whether the path carries an outer packet of this length uncut. The look-up is that of a packet forwarded from tartan0,
 * which has forwarding on. It knows learnt MTUs; those of routes are in the peer's slot.
 */
static inline bool fits(struct __sk_buff *skb, struct hand *h, const struct kernel_peer *peer, uint32_t bytes)
{
	struct bpf_fib_lookup *way = PART(h, way);

	if (peer->mtu != 0 && bytes > peer->mtu)
		return false;
	if (bytes <= FITS_EVERY_PATH + KERNEL_OVERHEAD4)
		return true;
	if (bytes > 65535)
		return false;
	way->family = AF_INET;
	way->l4_protocol = IPPROTO_UDP;
	way->sport = 0;
	way->dport = 0;
	way->tot_len = (uint16_t)bytes;
	way->ifindex = config.tun;
	way->rt_metric = 0; /* the TOS of the question, too */
	way->ipv4_src = swap32(peer->local);
	way->ipv4_dst = swap32(peer->remote);
	const long found = fib_lookup(skb, way, sizeof *way, 0);
	return found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH;
}

/* Whether the data process would send the packet, as far as its addresses and its TTL go. */
static inline bool may_leave(const struct view *v)
{
	if (v->ttl == 0 || is_martian(v->source) || in_subnet(v->destination))
		return false;
	return (config.flags & KERNEL_NO_SOURCE_CHECK) != 0 || in_subnet(v->source);
}

static inline bool to_peer(struct __sk_buff *skb, struct hand *h, const struct kernel_peer *peer)
{
	const uint64_t flags = BPF_F_ZERO_CSUM_TX | (h->view.dont_fragment ? BPF_F_DONT_FRAGMENT : 0);

	return tunnel(skb, h, peer->remote, peer->local, flags);
}

/* A probe goes by the kernel or not at all: on the slow path it would prove nothing. */
static inline int send_probe(struct __sk_buff *skb, struct hand *h, const struct kernel_peer *peer, uint8_t kind)
{
	if (!may_leave(&h->view) || !fits(skb, h, peer, h->view.length + KERNEL_OVERHEAD4) || !to_peer(skb, h, peer))
		return TC_ACT_SHOT;
	count_any(h, kind == PROBE_KERNEL_QUESTION ? probes_asked : probes_answered, 1);
	return (int)redirect(config.link, 0);
}

/* The flow of a pair that changes its engine: whether it has its former way still. See KERNEL_RECORDS. */
static inline bool lingers(struct __sk_buff *skb, struct hand *h, const struct kernel_peer *peer, bool records)
{
	const struct view *v = &h->view;

	if (!records && h->now - peer->moved_ns > KERNEL_MOVE_NS)
		return false;
	h->flow = (struct kernel_flow){ .source = v->source, .destination = v->destination, .protocol = v->protocol };
	if (v->protocol == IPPROTO_TCP && v->fragment == 0)
		load_bytes(skb, v->start + v->header_bytes, PART(h, flow.ports), sizeof h->flow.ports);
	uint64_t *last_ns = look_up(&flows_map, PART(h, flow));
	if (last_ns == NULL) {
		if (records)
			update(&flows_map, PART(h, flow), PART(h, now), BPF_ANY);
		return false;
	}
	if (!records && h->now - *last_ns > KERNEL_PAUSE_NS)
		return false;
	*last_ns = h->now;
	return !records;
}

/* Whether the packet goes to the peer by the kernel. */
static inline bool by_kernel(struct __sk_buff *skb, struct hand *h, const struct kernel_peer *peer)
{
	const uint32_t state = peer->state;
	const bool kernel = (state & KERNEL_STATE_MASK) == KERNEL_KERNEL;

	if ((state & (KERNEL_RECORDS | KERNEL_MOVES)) == 0)
		return kernel;
	return kernel != lingers(skb, h, peer, (state & KERNEL_RECORDS) != 0);
}

/* Whether the kernel path may carry nothing any more. */
static inline bool is_stopped(const struct hand *h)
{
	return config.fence != 0 || h->now > config.forward_until_ns;
}

static inline int send(struct __sk_buff *skb, struct hand *h, const uint32_t start)
{
	const struct view *v = &h->view;

	if (see(skb, start, h) != rx_ok)
		return TC_ACT_UNSPEC;
	const struct kernel_peer *peer = find_peer(&v->destination, h);
	if (peer == NULL)
		return TC_ACT_UNSPEC;
	h->now = boot_ns();
	const uint8_t kind = probe_kind(skb, h);
	if (kind != 0)
		return is_stopped(h) ? TC_ACT_SHOT : send_probe(skb, h, peer, kind);
	/* The data process has the same fence and deadline; it counts what they stop. */
	if (!by_kernel(skb, h, peer) || is_stopped(h) || !measure(skb, h) || !may_leave(v))
		return TC_ACT_UNSPEC;
	if (v->dont_fragment && !fits(skb, h, peer, h->crossing.longest + KERNEL_OVERHEAD4))
		return TC_ACT_UNSPEC;
	/* A redirect to a device that is gone would lose the packet. */
	h->mtu = 0;
	if (check_mtu(skb, config.link, PART(h, mtu), 0, 0) < 0)
		return TC_ACT_UNSPEC;
	if (!to_peer(skb, h, peer))
		return drop(h, tx_error_other, h->crossing.packets);
	count(h, tx_ok, h->crossing.packets);
	count(h, tx_bytes, h->crossing.bytes);
	struct kernel_traffic *t = traffic_of(h);
	t->sent_packets += h->crossing.packets;
	t->sent_bytes += h->crossing.bytes;
	t->sent_ns = h->now;
	return (int)redirect(config.link, 0);
}

static inline bool is_heard(const struct kernel_peer *peer, uint32_t remote)
{
	return peer->remote == remote && (peer->state & KERNEL_STATE_MASK) != KERNEL_REFUSE;
}

/*
 * False if no member sent the datagram. The inner source may be unknown. The number is that of the peer with the inner
 * source, else of one with the outer address.
 */
static inline bool find_sender(struct hand *h)
{
	if (h->key.tunnel_id != config.vni || h->key.remote_ipv4 == config.local)
		return false;
	h->is_bound = false;
	if (h->fault == rx_ok) {
		const struct kernel_peer *peer = find_peer(&h->view.source, h);
		if (peer != NULL && is_heard(peer, h->key.remote_ipv4)) {
			h->local = peer->local;
			h->is_bound = true;
			return true;
		}
	}
	const struct kernel_endpoint *e = look_up(&endpoints_map, PART(h, key.remote_ipv4));
	if (e == NULL)
		return false;
	h->number = e->peer;
	const struct kernel_peer *peer = look_up(&peers_map, PART(h, number));
	if (peer == NULL || !is_heard(peer, h->key.remote_ipv4))
		return false;
	h->local = peer->local;
	return true;
}

/* The checks of the inner addresses and of fragments; rx_ok if the packet may pass. The stack checks the rest. */
static inline enum counter check_inner(const struct hand *h)
{
	const struct view *v = &h->view;

	if (v->ttl == 0)
		return rx_ttl;
	if (is_martian(v->source))
		return rx_martian;
	if ((config.flags & KERNEL_NO_SOURCE_CHECK) == 0 && !h->is_bound)
		return rx_spoof_src;
	if ((config.flags & KERNEL_NO_DESTINATION_CHECK) == 0 && !in_subnet(v->destination))
		return rx_bad_dst;
	if (is_broadcast_of(v->destination, config.network, config.network_mask) ||
	    is_broadcast_of(v->destination, config.subnet, config.subnet_mask))
		return rx_bad_dst;
	return fragment_impossible(v) ? rx_bad_frag : rx_ok;
}

/* A question goes back as its answer, the answer of a peer is noted; neither reaches the stack. */
static inline int take_probe(struct __sk_buff *skb, struct hand *h)
{
	const struct view *v = &h->view;
	struct kernel_traffic *t = traffic_of(h);
	struct probe_datagram p;

	t->heard_ns = h->now;
	if (load_bytes(skb, v->start + IPV4_HEADER_BYTES, &p, sizeof p) != 0 || !probe_is_sound(&p, v))
		return drop(h, rx_bad_probe, 1);
	count(h, rx_probe, 1);
	if (p.kind == PROBE_KERNEL_ANSWER) {
		t->answered_ns = h->now;
		t->answered_sequence = swap32(p.sequence);
		t->answered_opaque = swap64(p.opaque);
		return TC_ACT_SHOT;
	}
	struct kernel_peer *peer = look_up(&peers_map, PART(h, number));
	if (peer == NULL || !may_answer(&peer->answers, (uint32_t)(h->now / 1000000000)))
		return drop(h, probes_limited, 1);
	if (!probe_turn(skb, v, &p) ||
	    !tunnel(skb, h, h->key.remote_ipv4, h->key.local_ipv4, BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT))
		return TC_ACT_SHOT;
	count(h, probes_answered, 1);
	return (int)redirect(config.link, 0);
}

/* The first reason to drop the packet, or rx_ok. */
static inline enum counter judge(struct __sk_buff *skb, struct hand *h, const uint32_t start)
{
	h->now = boot_ns();
	if (config.fence != 0)
		return rx_fenced;
	if (h->now > config.forward_until_ns)
		return rx_orphaned;
	h->fault = see(skb, start, h);
	if (h->fault == rx_short)
		return rx_short;
	if (!read_key(skb, h) || !find_sender(h))
		return rx_not_member;
	/* tartan-k hears on all addresses of the host. Before Linux 6.0 the key does not tell which it was. */
	if (h->key.local_ipv4 != 0 && h->key.local_ipv4 != h->local)
		return rx_bad_dst;
	return h->fault != rx_ok ? h->fault : check_inner(h);
}

static inline int receive(struct __sk_buff *skb, struct hand *h, const uint32_t start)
{
	const struct view *v = &h->view;
	const enum counter why = judge(skb, h, start);

	if (why != rx_ok)
		return drop(h, why, segments(skb));
	if (probe_kind(skb, h) != 0)
		return take_probe(skb, h);
	measure(skb, h);
	count(h, rx_ok, h->crossing.packets);
	count(h, rx_bytes, h->crossing.bytes);
	if (v->header_bytes > IPV4_HEADER_BYTES)
		count(h, rx_opts, h->crossing.packets);
	if (v->total < v->length)
		count(h, rx_trimmed, h->crossing.packets);
	struct kernel_traffic *t = traffic_of(h);
	t->heard_ns = h->now;
	t->received_packets += h->crossing.packets;
	t->received_bytes += h->crossing.bytes;
	return (int)redirect(config.tun, BPF_F_INGRESS);
}

static inline int run_outbound(struct __sk_buff *skb, const uint32_t start)
{
	struct hand *h = take_hand();

	return h == NULL ? TC_ACT_UNSPEC : send(skb, h, start);
}

static inline int run_inbound(struct __sk_buff *skb, const uint32_t start)
{
	struct hand *h = take_hand();

	return h == NULL ? TC_ACT_SHOT : receive(skb, h, start);
}

SECTION("tc/outbound") int outbound(struct __sk_buff *skb)
{
	return run_outbound(skb, 0);
}

SECTION("tc/inbound") int inbound(struct __sk_buff *skb)
{
	return run_inbound(skb, 0);
}

/* BPF_PROG_TEST_RUN puts an Ethernet header before the packet. */
#define TEST_START 14u

SECTION("tc/outbound_test") int outbound_test(struct __sk_buff *skb)
{
	return run_outbound(skb, TEST_START);
}

/* The outer addresses and the VNI come in skb->cb; TC_ACT_STOLEN if keys here have no local address (before 6.0). */
SECTION("tc/inbound_test") int inbound_test(struct __sk_buff *skb)
{
	struct hand *h = take_hand();

	if (h == NULL)
		return TC_ACT_SHOT;
	/* The kernel keeps one key, so what is sent from there to here came from there. */
	make_key(h, skb->cb[2], skb->cb[1], skb->cb[0]);
	if (set_tunnel_key(skb, PART(h, key), sizeof h->key, 0) != 0)
		return TC_ACT_STOLEN;
	if (skb->cb[3] != 0)
		return TC_ACT_OK; /* that was the question */
	return receive(skb, h, TEST_START);
}
