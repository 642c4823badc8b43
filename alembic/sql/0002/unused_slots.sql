-- Returns the slots that are empty, and take no messages.
CREATE FUNCTION {schema}.unused_slots() RETURNS SETOF smallint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT number::smallint
        FROM generate_series(0, (SELECT count(*)::integer FROM pg_inherits WHERE inhparent = '{schema}.message'::regclass) - 1) AS number
        WHERE number NOT IN (SELECT slot FROM {schema}.filled_slot) AND number NOT IN (SELECT slot FROM {schema}.log_state);
END
$$
