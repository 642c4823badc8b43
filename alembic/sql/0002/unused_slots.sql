-- Returns the slots that are empty, and take no messages.
CREATE FUNCTION {schema}.unused_slots() RETURNS SETOF smallint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT number::smallint FROM generate_series(0, 31) AS number
        WHERE to_regclass(format('{schema}.message_%s', number)) IS NOT NULL
          AND number NOT IN (SELECT slot FROM {schema}.filled_slot) AND number NOT IN (SELECT slot FROM {schema}.log_state);
END
$$
