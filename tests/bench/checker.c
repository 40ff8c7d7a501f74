/*
 * checker - is everything that was reported as appended in the file, whole and once?
 *
 * usage: checker FILE WRITER=RECORDS...
 *
 *   RECORDS  the writer's records 1 to RECORDS were reported as appended
 *
 * Prints one line: `reported=N kept=N lost=N torn=N doubled=N disordered=N unreported=N`
 *
 *   kept        of those reported, how many are there
 *   torn        lines that are no record: pieces, mixtures, zeros, an end without newline
 *   doubled     whole records beyond the first of their kind
 *   disordered  first ones that stand behind a later one of their writer
 *   unreported  whole records that nobody reported: of an append that has failed, say
 *
 * Exit status 2: it could not be told.
 */

#include "record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct writer {
	const char *name;
	unsigned long records, newest;
	char *seen; /* one byte for each record, which has its number less 1 */
};

static struct writer *find(struct writer *writers, int count, const char *name)
{
	for (int i = 0; i < count; i++)
		if (strcmp(writers[i].name, name) == 0)
			return &writers[i];
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long reported = 0, kept = 0, torn = 0, doubled = 0, disordered = 0, unreported = 0;
	int count = argc - 2;
	struct writer *writers = calloc(argc, sizeof *writers);
	FILE *file = argc < 2 ? NULL : fopen(argv[1], "r");

	if (argc < 2) {
		fprintf(stderr, "usage: checker FILE WRITER=RECORDS...\n");
		return 2;
	} else if (file == NULL) {
		perror(argv[1]);
		return 2;
	}
	for (int i = 0; i < count; i++) {
		char *equals = strchr(argv[i + 2], '=');
		if (equals == NULL) {
			fprintf(stderr, "checker: no number of records in %s\n", argv[i + 2]);
			return 2;
		}
		*equals = 0;
		writers[i].name = argv[i + 2];
		writers[i].records = strtoul(equals + 1, NULL, 10);
		writers[i].seen = calloc(writers[i].records + 1, 1);
		reported += writers[i].records;
	}

	char *line = NULL;
	size_t room = 0;
	for (ssize_t size; (size = getline(&line, &room, file)) > 0;) {
		char name[NAME_SIZE + 1];
		unsigned long number;
		if (size != RECORD_SIZE || !record_parse(line, name, &number)) {
			torn++;
			continue;
		}
		struct writer *writer = find(writers, count, name);
		if (writer == NULL || number < 1 || number > writer->records) {
			unreported++;
			continue;
		}
		if (writer->seen[number - 1]) {
			/* It is out of order by nature: one fault, not two. */
			doubled++;
			continue;
		}
		writer->seen[number - 1] = 1;
		kept++;
		if (number < writer->newest)
			disordered++;
		else
			writer->newest = number;
	}
	if (ferror(file)) {
		perror(argv[1]);
		return 2;
	}
	printf("reported=%lu kept=%lu lost=%lu torn=%lu doubled=%lu disordered=%lu unreported=%lu\n",
	       reported, kept, reported - kept, torn, doubled, disordered, unreported);
	return 0;
}
