/* Mapping of the two shared memories; see shared-files.h. */
#include "shared-files.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <stddef.h>

/* Reading a page past the end of a mapped file is SIGBUS, so a shorter file is refused. */
static int map(int fd, size_t bytes, int protection, void **mapped)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return errno;
	if (!S_ISREG(st.st_mode) || (size_t)st.st_size < bytes)
		return EPROTO;
	*mapped = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
	return *mapped == MAP_FAILED ? errno : 0;
}

static int check_routes(const struct routes_file *r)
{
	if (r->magic != LAYOUT_MAGIC || r->version != LAYOUT_VERSION || r->size != sizeof *r)
		return EPROTO;
	return r->network_length > 32 || r->subnet_length > 32 ? EPROTO : 0;
}

static int check_counters(const struct counters_file *c)
{
	if (c->magic != LAYOUT_MAGIC || c->version != LAYOUT_VERSION || c->size != sizeof *c)
		return EPROTO;
	return c->counter_count > COUNTERS_MAX ? EPROTO : 0;
}

int shared_files_open(struct shared_files *files, int routes_fd, int counters_fd, const char **step)
{
	void *routes;
	void *counters;

	*step = "routes";
	if ((fcntl(routes_fd, F_GETFL) & O_ACCMODE) != O_RDONLY)
		return EACCES;
	int err = map(routes_fd, sizeof(struct routes_file), PROT_READ, &routes);
	if (err != 0)
		return err;
	err = check_routes(routes);
	if (err != 0)
		goto unmap_routes;
	*step = "counters";
	err = map(counters_fd, sizeof(struct counters_file), PROT_READ | PROT_WRITE, &counters);
	if (err != 0)
		goto unmap_routes;
	err = check_counters(counters);
	if (err != 0)
		goto unmap_counters;
	*files = (struct shared_files){ .routes = routes, .counters = counters };
	return 0;

unmap_counters:
	munmap(counters, sizeof(struct counters_file));
unmap_routes:
	munmap(routes, sizeof(struct routes_file));
	return err;
}
