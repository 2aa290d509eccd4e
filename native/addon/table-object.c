/* The JavaScript object of a table; its methods are in table-control.c, table-publish.c and table-counters.c. */
#include "addon.h"
#include "table.h"

#include <stdlib.h>

static void table_finalize(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	table_close(data);
	free(data);
}

static napi_value close_method(napi_env env, napi_callback_info info)
{
	struct table *t = read_this(env, info, 0, NULL, &table_tag, "a table");
	if (t)
		table_close(t);
	return NULL;
}

static napi_value table_object(napi_env env, const struct table *opened)
{
	struct table *t = malloc(sizeof *t);
	napi_value object = new_object(env);

	if (t)
		table_clear(t);
	if (!t || !object || !ok(env, napi_wrap(env, object, t, table_finalize, NULL, NULL))) {
		free(t);
		return NULL;
	}
	/* The caller owns what was opened until the object is complete. One collected before closes nothing. */
	ok(env, napi_type_tag_object(env, object, &table_tag));
	add_number(env, object, "routesFd", opened->routes_fd);
	add_number(env, object, "routesReadOnlyFd", opened->routes_read_only_fd);
	add_number(env, object, "countersFd", opened->counters_fd);
	table_add_control(env, object);
	table_add_publish(env, object);
	table_add_counters(env, object);
	table_add_measurements(env, object);
	add_function(env, object, "close", close_method);
	object = finished(env, object);
	if (object)
		*t = *opened;
	return object;
}

static napi_value create_table(napi_env env, napi_callback_info info)
{
	char label[PATH_BYTES];
	struct table t;
	const char *step;
	napi_value argv[1], object;
	int err;

	if (!read_arguments(env, info, 1, argv) ||
	    !read_text(env, argv[0], "the label", label, sizeof label))
		return NULL;
	err = table_create(&t, label, &step);
	if (err)
		return throw_errno(env, err, step, label);
	object = table_object(env, &t);
	if (!object)
		table_close(&t);
	return object;
}

static napi_value adopt_table(napi_env env, napi_callback_info info)
{
	int routes_fd, counters_fd, err;
	uint32_t version;
	struct table t;
	const char *step;
	napi_value argv[3], object;

	if (!read_arguments(env, info, 3, argv) || !read_descriptor(env, argv[0], &routes_fd) ||
	    !read_descriptor(env, argv[1], &counters_fd) || !read_u32(env, argv[2], "version", &version))
		return NULL;
	err = table_adopt(&t, routes_fd, counters_fd, version, &step);
	if (err)
		return throw_errno(env, err, step, NULL);
	object = table_object(env, &t);
	if (!object) {
		/* The caller still owns the two descriptors that it passed in. */
		t.routes_read_only_fd = -1;
		t.counters_fd = -1;
		table_close(&t);
	}
	return object;
}

void table_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "createTable", create_table);
	add_function(env, exports, "adoptTable", adopt_table);
	add_function(env, exports, "checkTable", table_check);
}
