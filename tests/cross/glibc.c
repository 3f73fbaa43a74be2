// SPDX-License-Identifier: GPL-2.0-only
/* What Debian's libnetfilter_conntrack, its libraries and libgcc_s want and musl does not have. */
#include <stdarg.h>
#include <stdio.h>

int __snprintf_chk(char *to, size_t size, int flag, size_t room, const char *format, ...)
{
	(void)flag;
	(void)room;
	va_list words;
	va_start(words, format);
	int length = vsnprintf(to, size, format, words);
	va_end(words);
	return length;
}

int __fprintf_chk(FILE *to, int flag, const char *format, ...)
{
	(void)flag;
	va_list words;
	va_start(words, format);
	int length = vfprintf(to, format, words);
	va_end(words);
	return length;
}

int __printf_chk(int flag, const char *format, ...)
{
	(void)flag;
	va_list words;
	va_start(words, format);
	int length = vprintf(format, words);
	va_end(words);
	return length;
}

/* Nobody unwinds here. */
int _dl_find_object(void *at, void *result)
{
	(void)at;
	(void)result;
	return -1;
}

#ifdef __x86_64__
/* libgcc_s has these under old versions only, which musl's loader does not take. */
unsigned int __cpu_model[4];

int __cpu_indicator_init(void)
{
	return 0;
}
#endif
