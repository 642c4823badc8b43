-- Removes nodes with all that they hosted. One statement after the other: each sees what was committed before it.
CREATE FUNCTION {schema}.remove_nodes(nodes uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM {schema}.node WHERE id = ANY (nodes);
    DELETE FROM {schema}.subscription WHERE node = ANY (nodes);
    DELETE FROM {schema}.full_channel WHERE node = ANY (nodes);
END
$$
