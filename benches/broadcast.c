/* The rival of a broadcast: MPI_Bcast of a buffer in chunks, as a program would that reads a file at
 * rank 0 and wants it everywhere. Prints the seconds that the slowest rank took, one line a round.
 * usage: broadcast BYTES CHUNK ROUNDS */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Any byte follows from its place, so that each rank can check what came. */
static unsigned char byte_at(size_t at, int round) { return (unsigned char)(at * 31 + (at >> 12) + round); }

int main(int argc, char **argv)
{
    int rank, wrong = 0, wrong_anywhere;
    if (argc != 4) {
        fprintf(stderr, "usage: broadcast BYTES CHUNK ROUNDS\n");
        return 2;
    }
    size_t bytes = strtoull(argv[1], NULL, 10), chunk = strtoull(argv[2], NULL, 10);
    int rounds = atoi(argv[3]);
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    unsigned char *buffer = malloc(bytes);
    if (!buffer || chunk == 0)
        MPI_Abort(MPI_COMM_WORLD, 1);
    for (int round = 0; round < rounds; round++) {
        /* Pages are there before the clock runs. */
        memset(buffer, 0xff, bytes);
        for (size_t at = 0; rank == 0 && at < bytes; at++)
            buffer[at] = byte_at(at, round);
        MPI_Barrier(MPI_COMM_WORLD);
        double start = MPI_Wtime();
        for (size_t at = 0; at < bytes; at += chunk)
            MPI_Bcast(buffer + at, (int)(bytes - at < chunk ? bytes - at : chunk), MPI_BYTE, 0, MPI_COMM_WORLD);
        double took = MPI_Wtime() - start, slowest;
        for (size_t at = 0; at < bytes; at += 4093)
            wrong |= buffer[at] != byte_at(at, round);
        MPI_Reduce(&took, &slowest, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
        if (rank == 0) {
            printf("%.6f\n", slowest);
            fflush(stdout);
        }
    }
    MPI_Allreduce(&wrong, &wrong_anywhere, 1, MPI_INT, MPI_LOR, MPI_COMM_WORLD);
    MPI_Finalize();
    if (wrong_anywhere && rank == 0)
        fprintf(stderr, "broadcast: other bytes came than were sent\n");
    return wrong_anywhere ? 1 : 0;
}
