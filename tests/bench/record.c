#include "record.h"

#include <stdio.h>
#include <string.h>

void record_render(char *record, const char *writer, unsigned long number)
{
	char head[RECORD_SIZE + 1];
	int size = snprintf(head, sizeof head, "%.*s %08lu ", NAME_SIZE, writer, number);
	memcpy(record, head, size);
	for (int i = size; i < RECORD_SIZE - 1; i++)
		record[i] = 'a' + (i + number) % 26;
	record[RECORD_SIZE - 1] = '\n';
}

int record_parse(const char *record, char *writer, unsigned long *number)
{
	char line[RECORD_SIZE + 1], again[RECORD_SIZE];
	memcpy(line, record, RECORD_SIZE);
	line[RECORD_SIZE] = 0;
	/* NAME_SIZE and the width of a number that still leaves room for letters. */
	if (sscanf(line, "%24s %19lu", writer, number) != 2)
		return 0;
	record_render(again, writer, *number);
	return memcmp(again, record, RECORD_SIZE) == 0;
}
