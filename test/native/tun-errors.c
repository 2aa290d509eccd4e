/*
 * tx.c and rx.c when the kernel refuses single reads and writes of the TUN. This program has its own read() and
 * writev(), which refuse as the kernel would and otherwise make the system call.
 */
#include "bulk.h"
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>

static atomic_int refused_reads, refused_writes, refusal;

static bool is_refused(atomic_int *left)
{
	for (int n = atomic_load(left); n > 0;)
		if (atomic_compare_exchange_weak(left, &n, n - 1))
			return true;
	return false;
}

/* Of packets only: the thread reads its doorbell too. */
ssize_t read(int fd, void *bytes, size_t room)
{
	if (room > 65535 && is_refused(&refused_reads)) {
		errno = atomic_load(&refusal);
		return -1;
	}
	return syscall(SYS_read, fd, bytes, room);
}

/* Of merged packets only. */
ssize_t writev(int fd, const struct iovec *iov, int iovs)
{
	if (iovs > 2 && is_refused(&refused_writes)) {
		errno = atomic_load(&refusal);
		return -1;
	}
	return syscall(SYS_writev, fd, iov, iovs);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/*
 * fault N14: an error of one packet does not stop those behind it. The thread would be much longer about 100 of them if
 * it paused after each.
 */
static void read_errors(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	const struct recipe r = { .source = OURS, .destination = THEIRS };

	CHECK(s, becomes(l, tx_ok));
	const uint64_t before = count(l, tx_ok), began = now_ms();
	atomic_store(&refusal, EINVAL);
	for (uint64_t i = 1; i <= 100; i++) {
		atomic_store(&refused_reads, 1);
		tun_put(l, &r);
		if (!CHECK(s, reaches(l, tx_ok, tx_ok, before + i)))
			break;
	}
	CHECK(s, count(l, tx_tun_errors) == 100 && now_ms() - began < 100 * BROKEN_MS * 9 / 10);
	/* A broken link pauses, and so does one that gives nothing but errors. */
	for (int i = 0; i < 2; i++) {
		const uint64_t errors = count(l, tx_tun_errors);
		atomic_store(&refusal, i == 0 ? EBADFD : EINVAL);
		atomic_store(&refused_reads, 1000000);
		tun_put(l, &r);
		poll(NULL, 0, 500);
		CHECK(s, count(l, tx_tun_errors) > errors && count(l, tx_tun_errors) - errors <= (2 + 2000 / BROKEN_MS) * TX_BUDGET);
	}
	atomic_store(&refused_reads, 0);
	lab_close(l);
}

/* Sends `count` packets that are merged, and expects each of them at the TUN, or none. */
static void merged(struct suite *s, struct lab *l, uint8_t protocol, size_t count, bool arrive)
{
	const size_t length = 1000;
	uint8_t *bytes = malloc(count * length), got[65536];

	stream_make(bytes, protocol, length, count, count);
	bulk_send(l, bytes, count * length, (uint16_t)length);
	for (size_t i = 0; arrive && i < count; i++) {
		ssize_t n = take(l->tun_outside, got, sizeof got);
		/* With DF the identification has no meaning, and the kernel counts it up too. */
		memcpy(got + VNET_HEADER_BYTES + 4, bytes + i * length + 4, 2);
		memcpy(got + VNET_HEADER_BYTES + 10, bytes + i * length + 10, 2);
		if (!CHECK(s, n == (ssize_t)(VNET_HEADER_BYTES + length) &&
				      memcmp(got + VNET_HEADER_BYTES, bytes + i * length, length) == 0))
			break;
	}
	free(bytes);
}

/* fault N13: a merged packet that the kernel refuses is written piece by piece. */
static void write_errors(struct suite *s)
{
	struct lab *l = lab_open(loop_rx);

	atomic_store(&refusal, EINVAL);
	atomic_store(&refused_writes, 1);
	merged(s, l, PROTOCOL_TCP, 20, true);
	CHECK(s, reaches(l, rx_ok, rx_error_tun, 20) && count(l, rx_ok) == 20);
	atomic_store(&refusal, ENOMEM);
	atomic_store(&refused_writes, 1);
	merged(s, l, PROTOCOL_UDP, 30, true);
	CHECK(s, reaches(l, rx_ok, rx_error_tun, 50) && count(l, rx_ok) == 50 && count(l, rx_bytes) == 50000);
	/* While the link is down a second try would fail too. */
	atomic_store(&refusal, EIO);
	atomic_store(&refused_writes, 1);
	merged(s, l, PROTOCOL_TCP, 20, false);
	CHECK(s, reaches(l, rx_error_tun, rx_error_tun, 20) && count(l, rx_ok) == 50);
	lab_close(l);
}

int main(void)
{
	struct suite s = { .name = "tun-errors", .random = 71 };

	read_errors(&s);
	write_errors(&s);
	return suite_end(&s);
}
