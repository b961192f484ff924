-- Flower asks for the ends of the tasks that it knows, by their ids.

DROP INDEX dpe.jobs_cut_short;
