/* Results: building the objects that go back to JavaScript. */
#include "addon.h"

#include <unistd.h>

static void add_value(napi_env env, napi_value object, const char *name, napi_value value)
{
	ok(env, napi_set_named_property(env, object, name, value));
}

void add_function(napi_env env, napi_value object, const char *name, napi_callback function)
{
	napi_value value;
	if (ok(env, napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value)))
		add_value(env, object, name, value);
}

void add_string(napi_env env, napi_value object, const char *name, const char *text)
{
	napi_value value;
	if (ok(env, napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value)))
		add_value(env, object, name, value);
}

void add_number(napi_env env, napi_value object, const char *name, double number)
{
	napi_value value = new_number(env, number);
	if (value)
		add_value(env, object, name, value);
}

void add_descriptors(napi_env env, napi_value object, const char *name, const int *descriptors, size_t count)
{
	napi_value list, value;
	if (!ok(env, napi_create_array_with_length(env, count, &list)))
		return;
	for (size_t i = 0; i < count; i++) {
		value = new_number(env, descriptors[i]);
		if (!value || !ok(env, napi_set_element(env, list, (uint32_t)i, value)))
			return;
	}
	add_value(env, object, name, list);
}

napi_value new_object(napi_env env)
{
	napi_value object;
	return ok(env, napi_create_object(env, &object)) ? object : NULL;
}

napi_value new_number(napi_env env, double number)
{
	napi_value value;
	return ok(env, napi_create_double(env, number, &value)) ? value : NULL;
}

napi_value new_descriptor(napi_env env, int fd)
{
	napi_value value = new_number(env, fd);
	if (!value)
		close(fd);
	return value;
}

napi_value finished(napi_env env, napi_value object)
{
	bool pending = true;
	return napi_is_exception_pending(env, &pending) == napi_ok && !pending ? object : NULL;
}
