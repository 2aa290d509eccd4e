/*
 * The two shared memories as tartand holds them: making, mapping, reserving and closing them, and the table behind a
 * JavaScript object. layout.h says what is in them. They have no name in any directory and can neither shrink nor
 * grow, so what is mapped stays there (memfd_create(2)).
 *
 * A page of such a memory is taken when it is touched, and a touch for which there is no page is SIGBUS. Therefore
 * pages are reserved before they are touched: that can fail and be told.
 */
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "addon.h"

const napi_type_tag table_tag = { 0x2b7e151628aed2a6, 0xabf7158809cf4f3c };

/* Older headers do not have it. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

void table_clear(struct table *table)
{
	*table = (struct table){ .routes_fd = -1, .routes_read_only_fd = -1, .counters_fd = -1 };
}

static void close_one(int fd)
{
	if (fd >= 0)
		close(fd);
}

void table_close(struct table *table)
{
	if (table->routes)
		munmap(table->routes, table->counters ? sizeof *table->routes : HEAD_BYTES);
	if (table->counters)
		munmap((void *)(uintptr_t)table->counters, sizeof *table->counters);
	close_one(table->routes_fd);
	close_one(table->routes_read_only_fd);
	close_one(table->counters_fd);
	table_clear(table);
}

/* Of another layout only the head of the routes is mapped. */
static int map_memories(struct table *table, bool is_known, const char **step)
{
	const size_t bytes = is_known ? sizeof *table->routes : HEAD_BYTES;
	void *routes, *counters = NULL;

	*step = "mmap";
	routes = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, table->routes_fd, 0);
	if (routes == MAP_FAILED)
		return errno;
	if (is_known)
		counters = mmap(NULL, sizeof *table->counters, PROT_READ, MAP_SHARED, table->counters_fd, 0);
	if (counters == MAP_FAILED) {
		int err = errno;
		munmap(routes, bytes);
		return err;
	}
	table->routes = routes;
	table->counters = counters;
	return 0;
}

/*
 * Reserves the pages of a range. If it fails it gives back pages of the range that nobody has touched, also those that
 * were reserved before.
 */
static int reserve(int fd, size_t at, size_t bytes)
{
	while (fallocate(fd, 0, (off_t)at, (off_t)bytes) < 0) {
		if (errno != EINTR)
			return errno;
	}
	return 0;
}

/* Pages behind those of the reserved blocks only: the data process may not have touched its blocks yet. */
static int reserve_blocks(struct table *table, uint32_t peers)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE), start = offsetof(struct counters_file, peer);
	const size_t reserved = start + table->reserved_peers * sizeof(struct peer_block);
	const size_t at = (reserved + page - 1) / page * page, end = start + peers * sizeof(struct peer_block);
	int err = end > at ? reserve(table->counters_fd, at, end - at) : 0;

	if (!err && peers > table->reserved_peers)
		table->reserved_peers = peers;
	return err;
}

int table_reserve(struct table *table, uint32_t generation, const struct table_rows *rows, const char **step)
{
	const struct route_slot_head head = route_slot_measure(rows, generation);
	const size_t slot = offsetof(struct routes_file, slot) + generation % 2 * sizeof(struct route_slot);
	struct route_slot_part part[ROUTE_SLOT_PARTS];
	int err = 0;

	*step = "fallocate";
	route_slot_parts(&head, part);
	for (size_t i = 0; i < ROUTE_SLOT_PARTS && !err; i++) {
		if (part[i].bytes > 0)
			err = reserve(table->routes_fd, slot + part[i].at, part[i].bytes);
	}
	return err ? err : reserve_blocks(table, rows->peer_count);
}

const struct route_slot *table_live_slot(const struct table *t)
{
	const struct routes_file *f = t->routes;
	struct route_slot_head head;
	if (!t->counters)
		return NULL;
	const uint32_t generation = atomic_load_explicit(&f->generation, memory_order_acquire);
	const struct route_slot *slot = &f->slot[generation % 2];
	if (f->magic != LAYOUT_MAGIC || f->version != LAYOUT_VERSION || f->size != sizeof *f)
		return NULL;
	return route_slot_verify(slot, generation, &head) ? slot : NULL;
}

/* Makes a memory of zeros with a sealed size. /proc/<pid>/maps shows the label. */
static int make_memory(const char *what, const char *label, size_t size, int *result, const char **step)
{
	const unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	char name[PATH_BYTES];
	int err;

	*step = "memfd_create";
	if (snprintf(name, sizeof name, "%s:%s", what, label) >= (int)sizeof name)
		return ENAMETOOLONG;
	int fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL) /* Linux before 6.3 */
		fd = memfd_create(name, flags);
	if (fd < 0)
		return errno == EINVAL ? ENAMETOOLONG : errno;
	*step = "ftruncate";
	err = ftruncate(fd, (off_t)size) < 0 ? errno : 0;
	/* The data process has a read-only descriptor. The mode keeps it from opening a writable one by /proc. */
	if (!err && fchmod(fd, 0600) < 0)
		err = errno;
	if (!err && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		err = errno;
	if (err) {
		close(fd);
		return err;
	}
	*result = fd;
	return 0;
}

/* Opens another descriptor of the same memory (proc(5)). Returns it or -1. */
static int open_again(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

static int make_memories(struct table *table, const char *label, const char **step)
{
	static const struct table_rows none = { 0 };
	int err = make_memory("routes", label, sizeof *table->routes, &table->routes_fd, step);
	if (!err)
		err = make_memory("counters", label, sizeof *table->counters, &table->counters_fd, step);
	if (err)
		return err;
	*step = "fallocate";
	err = reserve(table->routes_fd, 0, HEAD_BYTES);
	if (!err)
		err = reserve(table->counters_fd, 0, offsetof(struct counters_file, peer));
	if (!err)
		err = table_reserve(table, 0, &none, step);
	if (err)
		return err;
	*step = "open";
	table->routes_read_only_fd = open_again(table->routes_fd, O_RDONLY);
	return table->routes_read_only_fd < 0 ? errno : map_memories(table, true, step);
}

/* The data process checks the header before it writes its first counter. Afterwards it is the only writer. */
static int write_counters_header(int fd)
{
	/* In the order of the words before `pid`. */
	const uint32_t words[] = { LAYOUT_MAGIC, LAYOUT_VERSION, sizeof(struct counters_file), COUNTER_COUNT };
	_Static_assert(sizeof words == offsetof(struct counters_file, pid), "a word is missing");
	ssize_t written = pwrite(fd, words, sizeof words, 0);
	if (written < 0)
		return errno;
	return written == (ssize_t)sizeof words ? 0 : EIO;
}

int table_create(struct table *table, const char *label, const char **step)
{
	int err;

	table_clear(table);
	err = make_memories(table, label, step);
	if (!err) {
		*step = "pwrite";
		err = write_counters_header(table->counters_fd);
	}
	if (err) {
		table_close(table);
		return err;
	}
	table->routes->magic = LAYOUT_MAGIC;
	table->routes->version = LAYOUT_VERSION;
	table->routes->size = sizeof *table->routes;
	route_slot_pack(&table->routes->slot[0], 0, &(struct table_rows){ 0 });
	return 0;
}

/* Reading a page past the end of a mapped file is SIGBUS, so a memory of any other size is refused. */
static int check_size(int fd, size_t least, size_t most)
{
	struct stat info;
	if (fstat(fd, &info) < 0)
		return errno;
	const size_t size = (size_t)info.st_size;
	return S_ISREG(info.st_mode) && size >= least && size <= most ? 0 : EPROTO;
}

int table_adopt(struct table *table, int routes_fd, int counters_fd, uint32_t version, const char **step)
{
	const bool is_known = version == LAYOUT_VERSION;
	int err;

	table_clear(table);
	*step = "fstat";
	err = is_known ? check_size(routes_fd, sizeof *table->routes, sizeof *table->routes)
		       : check_size(routes_fd, HEAD_BYTES, SIZE_MAX);
	if (!err && is_known)
		err = check_size(counters_fd, sizeof *table->counters, sizeof *table->counters);
	if (err)
		return err;
	*step = "open";
	/* The descriptor of the data process is read-only. */
	table->routes_fd = open_again(routes_fd, O_RDWR);
	if (table->routes_fd < 0)
		return errno;
	table->counters_fd = counters_fd;
	err = map_memories(table, is_known, step);
	if (err) {
		table->counters_fd = -1;
		table_close(table);
		return err;
	}
	table->routes_read_only_fd = routes_fd;
	const struct route_slot *live = table_live_slot(table);
	table->reserved_peers = live ? live->head.peer_count : 0;
	return 0;
}

struct table *table_of(napi_env env, napi_callback_info info, size_t count, napi_value *argv)
{
	struct table *t = read_this(env, info, count, argv, &table_tag, "a table");
	if (t && !t->routes) {
		napi_throw_error(env, "ERR_CLOSED", "the route table is closed");
		return NULL;
	}
	return t;
}
