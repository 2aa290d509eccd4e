/*
 * Older kernels, which lack some offloads: offload_open() finds exactly those that are left, and both directions
 * forward every packet with them. This also holds on a real TUN, where the kernel cuts what the TUN does not take. Each
 * kernel is played by a child process.
 */
#include "bulk.h"
#include "collector.h"
#include "offload.h"
#include "refuse.h"
#include "tun-device.h"
#include <sys/wait.h>

#define SEGMENTS ((TSO_PAYLOAD + 1399) / 1400)
#define CHILD_SECONDS 60
#define OF_TUN (FEATURE(tun_csum) | FEATURE(tun_tso) | FEATURE(tun_uso))

struct kernel {
	const char *name;
	struct refuse refuses;
	uint32_t lost;
};

static const struct kernel kernels[] = {
	{ .name = "this one" },
	{ .name = "before 6.2", .refuses = { .tun_flags = REFUSE_USO }, .lost = FEATURE(tun_uso) },
	{ .name = "before 5.0",
	  .refuses = { .tun_flags = REFUSE_USO, .udp_gro = true },
	  .lost = FEATURE(tun_uso) | FEATURE(udp_gro) },
	{ .name = "before 4.18",
	  .refuses = { .tun_flags = REFUSE_USO, .udp_gro = true, .udp_segment = true },
	  .lost = FEATURE(tun_uso) | FEATURE(udp_gro) | FEATURE(udp_segment) },
	{ .name = "no UDP_SEGMENT", .refuses = { .udp_segment = true }, .lost = FEATURE(udp_segment) },
	{ .name = "no UDP_GRO", .refuses = { .udp_gro = true }, .lost = FEATURE(udp_gro) },
	{ .name = "checksums only",
	  .refuses = { .tun_flags = REFUSE_USO | REFUSE_TSO },
	  .lost = FEATURE(tun_uso) | FEATURE(tun_tso) },
	{ .name = "nothing on the TUN", .refuses = { .tun_flags = REFUSE_USO | REFUSE_TSO | REFUSE_CSUM }, .lost = OF_TUN },
	{ .name = "no TUNSETOFFLOAD", .refuses = { .tun_all = true }, .lost = OF_TUN },
	{ .name = "nothing at all",
	  .refuses = { .tun_all = true, .udp_gro = true, .udp_segment = true },
	  .lost = OF_TUN | FEATURE(udp_gro) | FEATURE(udp_segment) },
};

/* What a child reports at its end. */
struct report {
	unsigned long passed;
	unsigned long failed;
	char skipped[96]; /* the reason, or empty */
};

static uint32_t open_offloads(int tun)
{
	uint16_t ports[2];
	const struct descriptors udp = { .count = 2, .fd = { udp_open(SELF_IP, &ports[0]), udp_open(SELF_IP, &ports[1]) } };
	uint32_t refused = 0;
	uint32_t features =
		offload_open(&(struct descriptors){ .count = tun < 0 ? 0 : 1, .fd = { tun } }, &udp, &refused);

	close(udp.fd[0]);
	close(udp.fd[1]);
	return features;
}

static bool is_taken_whole(uint8_t protocol)
{
	return (lab_features & (protocol == PROTOCOL_UDP ? FEATURE(tun_uso) : FEATURE(tun_tso))) != 0;
}

/* Finishes the checksum that the kernel leaves unfinished if the TUN takes packets without checksums. */
static void finish(const struct vnet_header *v, uint8_t *bytes, size_t length)
{
	if (v->flags != VNET_NEEDS_CHECKSUM)
		return;
	uint16_t sum = reference_sum(0, bytes + v->checksum_start, length - v->checksum_start);
	reference_put(bytes + v->checksum_start + v->checksum_offset, sum == 0 && bytes[9] == 17 ? 0xffff : sum);
}

/* A read from the TUN gives a TSO packet if the TUN takes those, else one of the segments that the kernel cut. */
static void handed_over(struct suite *s, uint8_t protocol)
{
	struct tun_packet x = tun_packet_make(s, protocol, THEIRS);
	uint8_t *got = malloc(VNET_HEADER_BYTES + 65535), *packet = got + VNET_HEADER_BYTES, expected[2048];
	struct vnet_header v;

	CHECK(s, write(lab_tun[0], x.framed, VNET_HEADER_BYTES + x.p.length) > 0);
	for (size_t i = 0; i < (is_taken_whole(protocol) ? 1 : SEGMENTS); i++) {
		ssize_t bytes = take(lab_tun[1], got, VNET_HEADER_BYTES + 65535);
		if (!CHECK(s, bytes > VNET_HEADER_BYTES))
			break;
		vnet_header_get(&v, got);
		CHECK(s, v.flags == 0 || (lab_features & FEATURE(tun_csum)) != 0);
		if (is_taken_whole(protocol)) {
			CHECK(s, v.gso_type == x.vnet.gso_type && v.gso_size == 1400);
			CHECK(s, (size_t)bytes == VNET_HEADER_BYTES + x.p.length && memcmp(packet, x.p.bytes, x.p.length) == 0);
			break;
		}
		const size_t length = reference_segment(expected, &x.vnet, &x.p, i);
		finish(&v, packet, (size_t)bytes - VNET_HEADER_BYTES);
		CHECK(s, v.gso_type == 0 && (size_t)bytes == VNET_HEADER_BYTES + length);
		CHECK(s, memcmp(packet, expected, length) == 0);
	}
	free(x.framed);
	free(got);
}

/* Writes to the TUN. Where no kernel is behind it, the packet is cut here as the kernel would cut it. */
static void put(struct lab *l, const struct tun_packet *x, uint8_t protocol)
{
	uint8_t framed[2048] = { 0 };

	if (lab_tun[0] >= 0 || is_taken_whole(protocol)) {
		tun_packet_put(l, x);
		return;
	}
	for (size_t i = 0; i < SEGMENTS; i++) {
		size_t bytes = reference_segment(framed + VNET_HEADER_BYTES, &x->vnet, &x->p, i);
		if (write(l->tun_outside, framed, VNET_HEADER_BYTES + bytes) < 0)
			abort();
	}
}

static void leaves_in_bulk(struct suite *s, struct lab *l, uint8_t protocol)
{
	struct tun_packet x = tun_packet_make(s, protocol, THEIRS);
	uint8_t expected[2048], got[2048];
	uint64_t before = count(l, tx_ok);

	put(l, &x, protocol);
	ipv4_decrement_ttl(&x.p);
	for (size_t i = 0; i < SEGMENTS; i++) {
		size_t bytes = reference_segment(expected, &x.vnet, &x.p, i);
		CHECK(s, take(l->peer, got, sizeof got) == (ssize_t)bytes && memcmp(got, expected, bytes) == 0);
	}
	CHECK(s, reaches(l, tx_ok, tx_error_other, before + SEGMENTS) && count(l, tx_ok) == before + SEGMENTS);
	free(x.framed);
}

static void leaves_alone(struct suite *s, struct lab *l)
{
	uint8_t bytes[2048], got[2048];
	uint64_t sent = 0;

	for (size_t total = 28; total <= 1200; total += 97) {
		const struct recipe r = { .source = OURS, .destination = THEIRS, .total = total, .fragment = FRAGMENT_DF,
					  .payload = { 1, 2, 3, 4, 0, 0, 0, 0, 5 } };
		struct packet p = packet_make(bytes, &r);
		tun_put(l, &r);
		ipv4_decrement_ttl(&p);
		CHECK(s, take(l->peer, got, sizeof got) == (ssize_t)total && memcmp(got, bytes, total) == 0);
		CHECK(s, reaches(l, tx_ok, tx_error_other, ++sent) && count(l, tx_ok) == sent);
	}
}

/* UDP_SEGMENT is used only if the kernel has it: it fails on a socket without checksums, and that is counted. */
static void outbound(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	int on = 1;

	leaves_alone(s, l);
	leaves_in_bulk(s, l, PROTOCOL_TCP);
	leaves_in_bulk(s, l, PROTOCOL_UDP);
	CHECK(s, count(l, tx_gso_off) == 0);
	CHECK(s, setsockopt(l->w->udp, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on) == 0);
	leaves_in_bulk(s, l, PROTOCOL_TCP);
	if ((lab_features & FEATURE(udp_segment)) == 0)
		CHECK(s, count(l, tx_gso_off) == 0);
	else if (is_taken_whole(PROTOCOL_TCP))
		CHECK(s, count(l, tx_gso_off) == 1);
	lab_close(l);
}

/* What the peer sends in one message is written to the TUN merged; UDP only if the kernel has USO. */
static void arrives(struct suite *s, struct lab *l, uint8_t protocol, size_t length, size_t packets)
{
	uint8_t *sent = malloc(packets * length), *got = malloc(VNET_HEADER_BYTES + 65535), *segment = malloc(65535);
	const uint64_t before = count(l, rx_ok);
	size_t reads = 0;

	stream_make(sent, protocol, length, packets, SIZE_MAX);
	bulk_send(l, sent, packets * length, (uint16_t)length);
	for (size_t i = 0; i < packets; reads++) {
		struct vnet_header v;
		ssize_t bytes = take(l->tun_outside, got, VNET_HEADER_BYTES + 65535);
		if (!CHECK(s, bytes >= (ssize_t)(VNET_HEADER_BYTES + length)))
			break;
		const struct packet p = { .bytes = got + VNET_HEADER_BYTES, .length = (size_t)bytes - VNET_HEADER_BYTES };
		const size_t headers = protocol == PROTOCOL_UDP ? 28 : 40;
		vnet_header_get(&v, got);
		CHECK(s, v.gso_type == 0 || (protocol == PROTOCOL_UDP ? is_taken_whole(protocol) : v.gso_type == GSO_TCP4));
		const size_t segments = v.gso_type == 0 ? 1 : (p.length - headers + v.gso_size - 1) / v.gso_size;
		for (size_t number = 0; number < segments && i < packets; number++, i++) {
			const struct copy a = { length, sent + i * length };
			struct copy b = { p.length, p.bytes };
			if (v.gso_type != 0)
				b = (struct copy){ reference_segment(segment, &v, &p, number), segment };
			CHECK(s, collector_same(&a, &b));
		}
	}
	CHECK(s, reaches(l, rx_ok, rx_error_tun, before + packets));
	if (protocol == PROTOCOL_UDP && !is_taken_whole(protocol))
		CHECK(s, reads == packets);
	else if (packets > 1 && (lab_features & FEATURE(udp_gro)) != 0)
		CHECK(s, reads < packets);
	free(sent);
	free(got);
	free(segment);
}

static void inbound(struct suite *s)
{
	struct lab *l = lab_open(loop_rx);

	arrives(s, l, PROTOCOL_TCP, 1440, 1);
	arrives(s, l, PROTOCOL_UDP, 64, 1);
	arrives(s, l, PROTOCOL_TCP, 1440, 30);
	arrives(s, l, PROTOCOL_UDP, 1440, 30);
	arrives(s, l, PROTOCOL_UDP, 64, 50);
	lab_close(l);
}

static void live_on(struct suite *s, const struct kernel *k, bool on_tun, struct report *report)
{
	const char *step;

	if (on_tun && !device_open(lab_tun, &step)) {
		snprintf(report->skipped, sizeof report->skipped, "no real TUN, %s: %s", step, strerror(errno));
		return;
	}
	const uint32_t today = open_offloads(lab_tun[1]);
	if (on_tun)
		CHECK(s, ioctl(lab_tun[1], TUNSETOFFLOAD, 0ul) == 0);
	CHECK(s, refuse(&k->refuses, !on_tun));
	/* Without a TUN any descriptor serves, because the call does not reach it. */
	lab_features = open_offloads(on_tun ? lab_tun[1] : 0);
	CHECK(s, lab_features == (today & ~k->lost));
	CHECK(s, on_tun || (today & OF_TUN) == OF_TUN);
	if (on_tun)
		handed_over(s, PROTOCOL_TCP);
	if (on_tun && (today & FEATURE(tun_uso)) != 0)
		handed_over(s, PROTOCOL_UDP);
	outbound(s);
	inbound(s);
}

/* False if the real TUN had to be left out. */
static bool try_kernel(struct suite *s, const struct kernel *k, bool on_tun)
{
	struct report report = { 0 };
	int ends[2], status = 0;

	fflush(stdout);
	if (pipe(ends) < 0)
		abort();
	pid_t child = fork();
	if (child == 0) {
		struct suite own = { .name = s->name, .random = 35 };
		alarm(CHILD_SECONDS);
		live_on(&own, k, on_tun, &report);
		report.passed = own.passed;
		report.failed = own.failed;
		fflush(stdout);
		_exit(write(ends[1], &report, sizeof report) == sizeof report ? 0 : 1);
	}
	close(ends[1]);
	CHECK_CASE(s, child > 0 && read(ends[0], &report, sizeof report) == sizeof report, k->name);
	close(ends[0]);
	CHECK_CASE(s, waitpid(child, &status, 0) == child && status == 0, k->name);
	s->passed += report.passed;
	s->failed += report.failed;
	if (report.failed > 0)
		printf("%s: %lu failed on the kernel \"%s\"%s\n", s->name, report.failed, k->name, on_tun ? ", real TUN" : "");
	if (report.skipped[0] != '\0')
		printf("%s: skipped: %s\n", s->name, report.skipped);
	return report.skipped[0] == '\0';
}

int main(void)
{
	struct suite s = { .name = "floor", .random = 35 };
	bool has_tun = true;

	for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
		try_kernel(&s, &kernels[i], false);
		has_tun = has_tun && try_kernel(&s, &kernels[i], true);
	}
	return suite_end(&s);
}
