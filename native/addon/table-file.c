/* Making, mapping and closing the two files; see layout.h for what is in them. */
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "addon.h"

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
		munmap(table->routes, sizeof *table->routes);
	if (table->counters)
		munmap((void *)(uintptr_t)table->counters, sizeof *table->counters);
	close_one(table->routes_fd);
	close_one(table->routes_read_only_fd);
	close_one(table->counters_fd);
	table_clear(table);
}

static int map_both(struct table *table, const char **step)
{
	void *routes, *counters;

	*step = "mmap";
	routes = mmap(NULL, sizeof *table->routes, PROT_READ | PROT_WRITE, MAP_SHARED, table->routes_fd, 0);
	if (routes == MAP_FAILED)
		return errno;
	table->routes = routes;
	counters = mmap(NULL, sizeof *table->counters, PROT_READ, MAP_SHARED, table->counters_fd, 0);
	if (counters == MAP_FAILED)
		return errno;
	table->counters = counters;
	return 0;
}

/* A new file of that size, all zero, with its blocks reserved. */
static int make_file(int directory, const char *name, size_t size, int *result, const char **step)
{
	int fd, err;

	*step = "unlink";
	if (unlinkat(directory, name, 0) < 0 && errno != ENOENT)
		return errno;
	*step = "open";
	fd = openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	*step = "posix_fallocate";
	err = posix_fallocate(fd, 0, (off_t)size);
	if (err) {
		close(fd);
		unlinkat(directory, name, 0);
		return err;
	}
	*result = fd;
	return 0;
}

static int make_files(struct table *table, int directory, const char **step)
{
	int err = make_file(directory, "routes", sizeof *table->routes, &table->routes_fd, step);
	if (!err)
		err = make_file(directory, "counters", sizeof *table->counters, &table->counters_fd, step);
	if (err)
		return err;
	*step = "open";
	table->routes_read_only_fd = openat(directory, "routes", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return table->routes_read_only_fd < 0 ? errno : map_both(table, step);
}

/* The data process checks it before it writes its first counter; after that the file is its own. */
static int write_counters_header(int fd)
{
	const struct counters_file header = {
		.magic = LAYOUT_MAGIC,
		.version = LAYOUT_VERSION,
		.size = sizeof header,
		.counter_count = COUNTER_COUNT,
	};
	const size_t bytes = offsetof(struct counters_file, pid);
	ssize_t written = pwrite(fd, &header, bytes, 0);
	if (written < 0)
		return errno;
	return written == (ssize_t)bytes ? 0 : EIO;
}

int table_create(struct table *table, const char *directory, const char **step)
{
	int err, fd;

	table_clear(table);
	*step = "open";
	fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	err = make_files(table, fd, step);
	close(fd);
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
	slot_fill(&table->routes->slot[0], 0, NULL, 0);
	return 0;
}

/* A page past the end of a mapped file is SIGBUS: the size is what we would map or the file is refused. */
static int check_size(int fd, size_t size)
{
	struct stat info;
	if (fstat(fd, &info) < 0)
		return errno;
	return S_ISREG(info.st_mode) && info.st_size == (off_t)size ? 0 : EPROTO;
}

int table_adopt(struct table *table, int routes_fd, int counters_fd, const char **step)
{
	char path[32];
	int err;

	table_clear(table);
	*step = "fstat";
	err = check_size(routes_fd, sizeof *table->routes);
	if (!err)
		err = check_size(counters_fd, sizeof *table->counters);
	if (err)
		return err;
	*step = "open";
	/* The data process holds it read-only; this names the same file also when it has no name any more (proc(5)). */
	snprintf(path, sizeof path, "/proc/self/fd/%d", routes_fd);
	table->routes_fd = open(path, O_RDWR | O_CLOEXEC);
	if (table->routes_fd < 0)
		return errno;
	table->counters_fd = counters_fd;
	err = map_both(table, step);
	if (err) {
		table->counters_fd = -1;
		table_close(table);
		return err;
	}
	table->routes_read_only_fd = routes_fd;
	return 0;
}
