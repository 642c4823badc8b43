-- Returns the address of a topic, as pgchannels/names.py does; an error if the name is impossible.
CREATE FUNCTION {schema}.topic_address(topic text, prefix text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    letters constant text := 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.';
BEGIN
    -- translate() leaves what no topic has; an expression would take six times as long.
    IF (length(topic) BETWEEN 1 AND 99 AND translate(topic, letters || ':/@', '') = '') IS NOT TRUE THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('%s is no topic', coalesce(quote_literal(left(topic, 100)), 'NULL')),
            HINT = 'A topic has 1 to 99 ASCII letters, digits and ''-_.:/@''.';
    END IF;
    IF (length(prefix) BETWEEN 1 AND 50 AND translate(prefix, letters, '') = '') IS NOT TRUE THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('%s is no prefix', coalesce(quote_literal(left(prefix, 100)), 'NULL')),
            HINT = 'A prefix has 1 to 50 ASCII letters, digits and ''-_.''; it is an option of the layers that receive.';
    END IF;
    RETURN 'topic:' || prefix || ':' || topic;
END
$$
